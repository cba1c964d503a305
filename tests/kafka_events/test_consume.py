"""`ferroflow events consume`: a consumer group for scripts."""

import json
import os
import signal
import subprocess
import time
import uuid

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic


@pytest.fixture
def topic(brokers):
    name = f"consume-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(name, 3)])[name].result()
    return name


def send(brokers, topic, count):
    """Events by a producer that is not ours, in structured mode; two keys."""
    producer = Producer({"bootstrap.servers": brokers})
    for n in range(count):
        event = {"specversion": "1.0", "id": str(n), "source": "/test", "type": "test.made",
                 "data": {"n": n}}
        producer.produce(topic, json.dumps(event), key=f"key-{n % 2}",
                         headers={"content-type": "application/cloudevents+json"})
    producer.flush()


class Consuming:
    """The command, with what it prints in a file."""

    def __init__(self, folder, brokers, topic, *more):
        self.out = folder / f"out-{uuid.uuid4()}"
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [os.environ["FERROFLOW_BIN"], "events", "consume", "--brokers", brokers,
                 "--group", f"group-{topic}", "--topic", topic, *more],
                stdout=out, stderr=subprocess.PIPE, text=True)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return errors


def until(what, ready, limit=60):
    deadline = time.monotonic() + limit
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_events_are_printed_once_and_in_order_over_a_stop(tmp_path, brokers, topic):
    send(brokers, topic, 20)
    first = Consuming(tmp_path, brokers, topic)
    until("not all came", lambda: len(lines(first.out)) >= 20)
    first.stop()
    send(brokers, topic, 4)
    second = Consuming(tmp_path, brokers, topic)
    until("no more came", lambda: len(lines(second.out)) >= 4)
    second.stop()

    events = lines(first.out)
    for key in ("key-0", "key-1"):
        of = [event["data"]["n"] for event in events if event["partitionkey"] == key]
        assert of == sorted(of) and len(of) == 10
    assert {event["type"] for event in events} == {"test.made"}
    # The stop committed what was printed.
    assert sorted(event["data"]["n"] for event in lines(second.out)) == [0, 1, 2, 3]


def test_a_command_that_fails_is_tried_again_and_then_the_event_is_a_dead_letter(
        tmp_path, brokers, topic):
    seen = tmp_path / "seen"
    # Three is never done; 65 says that no attempt helps.
    command = (f"read line; echo \"$line\" >> {seen}; case \"$line\" in *'\"n\":3}}'*) exit 1;; "
               f"*'\"n\":4}}'*) exit 65;; esac")
    send(brokers, topic, 8)
    consuming = Consuming(tmp_path, brokers, topic, "--exec", command, "--attempts", "3",
                          "--backoff", "0")
    dead = []
    reader = Consumer({"bootstrap.servers": brokers, "group.id": f"dead-{topic}",
                       "auto.offset.reset": "earliest",
                       "topic.metadata.refresh.interval.ms": 500})
    reader.subscribe([f"{topic}.dlq"])
    deadline = time.monotonic() + 60
    while len(dead) < 2:
        assert time.monotonic() < deadline, "no dead letters"
        message = reader.poll(1)
        if message is not None and not message.error():
            dead.append(message)
    reader.close()
    until("not all came", lambda: {event["data"]["n"] for event in lines(seen)} == set(range(8)))
    errors = consuming.stop()

    attempts = [event["data"]["n"] for event in lines(seen)]
    assert [attempts.count(n) for n in range(8)] == [1, 1, 1, 3, 1, 1, 1, 1]
    told = {json.loads(message.value())["data"]["n"]: dict(message.headers()) for message in dead}
    assert told[3]["dlq-attempts"] == b"3" and told[4]["dlq-attempts"] == b"1"
    assert told[3]["dlq-reason"] == b"the command ended with exit status: 1"
    assert told[3]["dlq-topic"] == topic.encode()
    assert "given up" in errors


def test_settings_that_cannot_work_are_told(tmp_path, brokers, topic):
    consuming = Consuming(tmp_path, brokers, topic, "--sasl-mechanism", "PLAIN")
    _, errors = consuming.process.communicate(timeout=30)

    assert consuming.process.returncode == 1
    assert "events.kafka.sasl_mechanism: is set, and security_protocol is plaintext" in errors
