"""Stock clients of Kafka and CloudEvents read what a run tells the world."""

import json
import os
import subprocess
import time
import urllib.request

import pytest
from cloudevents.kafka import KafkaMessage, from_binary
from confluent_kafka import Consumer

TOPIC = "ferroflow.pipelines.v1"

SPEC = {
    "pipelineInfo": {"name": "events"},
    "schemaVersion": "2.1.0",
    "sdkVersion": "test",
    "components": {"comp-a": {"executorLabel": "exec-a"}},
    "deploymentSpec": {"executors": {"exec-a": {"container": {
        "image": "busybox", "command": ["sh", "-c", "true"]}}}},
    "root": {"dag": {"tasks": {"a": {
        "componentRef": {"name": "comp-a"}, "taskInfo": {"name": "a"}}}}},
}


class Platform:
    """A platform of the test's own."""

    def __init__(self, folder, brokers):
        port_file = folder / "port"
        environment = {**os.environ, "FERROFLOW_EVENTS__KAFKA__BROKERS": brokers}
        self.process = subprocess.Popen(
            [os.environ["FERROFLOW_BIN"], "up", "--listen", "127.0.0.1:0",
             "--data-dir", str(folder), "--port-file", str(port_file)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not (port_file.exists() and port_file.read_text()):
            assert time.monotonic() < deadline, "the platform is not ready"
            time.sleep(0.05)
        self.url = "http://" + port_file.read_text()

    def call(self, path, body=None):
        request = urllib.request.Request(
            self.url + path, data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json",
                     "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def run(self):
        run = self.call("/apis/v2beta1/runs", {"display_name": "events", "pipeline_spec": SPEC})
        while self.call(f"/apis/v2beta1/runs/{run['run_id']}")["state"] not in (
                "SUCCEEDED", "FAILED"):
            time.sleep(0.05)
        return run["run_id"]

    def kill(self):
        self.process.kill()
        self.process.wait()


def events_of(brokers, run, until, limit=60):
    """CloudEvents about a run, in the order of its partition, up to a type of event."""
    return events_of_runs(brokers, [run], until, limit)[run]


def events_of_runs(brokers, runs, until, limit=60):
    """The same of several runs."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"test-{runs[0]}",
                         "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([TOPIC])
    found, open_runs = {run: [] for run in runs}, set(runs)
    deadline = time.monotonic() + limit
    try:
        while open_runs and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None or message.error():
                continue
            run = message.key().decode().rsplit("/", 1)[-1]
            if run not in open_runs:
                continue
            headers = {name: value for name, value in message.headers()}
            event = from_binary(
                KafkaMessage(headers=headers, key=message.key(), value=message.value()),
                data_unmarshaller=json.loads)
            found[run].append(event)
            if event["type"] == until:
                open_runs.remove(run)
        missing = {run: [event["type"] for event in found[run]] for run in open_runs}
        assert not missing, f"no {until} in {missing}"
        return found
    finally:
        consumer.close()


def test_a_stock_consumer_reads_the_events_of_a_run(tmp_path, brokers):
    platform = Platform(tmp_path, brokers)
    try:
        run = platform.run()
        events = events_of(brokers, run, "ai.ferroflow.run.succeeded")
    finally:
        platform.kill()

    assert [event["specversion"] for event in events] == ["1.0"] * len(events)
    types = [event["type"] for event in events]
    assert types[0] == "ai.ferroflow.run.created"
    assert "ai.ferroflow.task.succeeded" in types
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert {event["partitionkey"] for event in events} == {f"default/{run}".encode()}
    assert events[0]["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert len({event["id"] for event in events}) == len(events)


def test_kafka_gets_what_happened_while_it_could_not_be_reached(tmp_path, brokers):
    # Nobody listens there: the platform goes on, and its log keeps the events.
    platform = Platform(tmp_path, "127.0.0.1:1")
    try:
        run = platform.run()
    finally:
        platform.kill()
    (tmp_path / "port").unlink()

    platform = Platform(tmp_path, brokers)
    try:
        events = events_of(brokers, run, "ai.ferroflow.run.succeeded")
    finally:
        platform.kill()

    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))


@pytest.fixture
def broker():
    """The test bed's broker, to be killed and started; it runs again afterwards."""
    command = os.environ.get("FERROFLOW_TEST_RESTART")
    if not command:
        pytest.skip("FERROFLOW_TEST_RESTART is not set (the parts are not the test bed's)")
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}

    def testbed(*arguments):
        subprocess.run([command, "testbed", *arguments], env=environment, check=True)

    testbed("mend")
    yield lambda action: testbed(action, "kafka")
    testbed("mend")


def test_a_broker_that_is_away_for_a_while_loses_no_event(tmp_path, brokers, broker):
    platform = Platform(tmp_path, brokers)
    try:
        runs = [platform.run()]
        broker("kill")
        begun = time.monotonic()
        while time.monotonic() < begun + 15:
            runs.append(platform.run())
            time.sleep(1)
        broker("restart")
        runs.append(platform.run())
        events = events_of_runs(brokers, runs, "ai.ferroflow.run.succeeded")
    finally:
        platform.kill()

    for run, told in events.items():
        assert [int(event["sequence"]) for event in told] == list(range(1, len(told) + 1)), run
    ids = [event["id"] for told in events.values() for event in told]
    assert len(ids) == len(set(ids))
    print(f"{len(runs)} runs, {len(ids)} events, in order and once")
