"""Events that go on from a cursor after a restart."""

import json
import os
import subprocess
import time
import urllib.request

import kfp
from conftest import Platform, binary
from pipelines import script


def events(platform, run_id, last=None):
    url = (
        f"{platform.url}/apis/ferroflow/v1/events?follow=false"
        f"&subject_prefix=namespaces/default/runs/{run_id}"
    )
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
        text = response.read().decode()
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "id" in fields:
            found.append((fields["id"], json.loads(fields["data"])["event"]))
    return found


def test_a_stream_goes_on_where_it_was(tmp_path):
    platform = Platform(tmp_path).start()
    try:
        client = kfp.Client(host=platform.url)
        run = client.create_run_from_pipeline_func(script, arguments={})
        client.wait_for_run_completion(run.run_id, 60, 1)
        before = events(platform, run.run_id)
        types = [event["type"].removeprefix("ai.ferroflow.") for _, event in before]
        assert types[0] == "run.created" and types[-1] == "run.succeeded"

        platform.stop()
        platform.start()
        after = events(platform, run.run_id, last=before[2][0])
        assert after == before[3:]
    finally:
        platform.stop()


def test_watching_goes_on_through_a_restart(tmp_path):
    platform = Platform(tmp_path).start()
    # Whoever watches comes back to the same address.
    platform.listen = platform.url.removeprefix("http://")
    watched = tmp_path / "watched"
    with open(watched, "w") as out:
        watcher = subprocess.Popen(
            [binary(), "events", "watch", "--type", "ai.ferroflow.run.succeeded"],
            env=os.environ | {"FERROFLOW_ENDPOINT": platform.url},
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )

    def runs():
        return [line.split("/")[-1] for line in watched.read_text().splitlines()]

    def run_and_wait():
        run = kfp.Client(host=platform.url).create_run_from_pipeline_func(script, arguments={})
        deadline = time.monotonic() + 60
        while run.run_id not in runs():
            assert watcher.poll() is None, watcher.communicate()
            assert time.monotonic() < deadline, watched.read_text()
            time.sleep(0.05)
        return run.run_id

    try:
        first = run_and_wait()
        platform.stop()
        platform.start()
        second = run_and_wait()
        assert runs() == [first, second]
    finally:
        watcher.terminate()
        platform.stop()
    assert "the platform is away, waiting for it" in watcher.communicate()[1]
