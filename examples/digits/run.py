"""Runs the digits pipeline on a platform: `python run.py [--host URL]`.

The pipeline goes in through the stock kfp client; what is printed meanwhile and at the end asks the
platform for more than KFP's API has (tasks with what they wait for, and their artifacts).
"""

import argparse
import json
import sys
import time
import urllib.request

import kfp
from pipeline import digits

ENDED = {"SUCCEEDED", "FAILED", "CANCELED"}


def get(host, path):
    with urllib.request.urlopen(host + path) as response:
        return json.load(response)


def told(task):
    """What there is to say of a task: its state, what it waits for, how long it took."""
    state = task.get("state", "PENDING").lower()
    note = task.get("note", "")
    if state == "running" and note:
        return f"{'waiting':10} {task['path'][5:]}: {note}"
    if state == "pending":
        return None
    return f"{state:10} {task['path'][5:]}"


def follow(host, run_id):
    """Prints what happens to each task; gives the run."""
    said = {}
    while True:
        run = get(host, f"/apis/v2beta1/runs/{run_id}")
        for task in get(host, f"/apis/ferroflow/v1/runs/{run_id}/tasks").get("tasks", []):
            if task["type"] not in ("CONTAINER", "IMPORTER"):
                continue
            line = told(task)
            if line and said.get(task["task_id"]) != line:
                said[task["task_id"]] = line
                print(f"   {line}", flush=True)
        if run["state"] in ENDED:
            return run
        time.sleep(0.2)


def metrics_table(artifacts):
    rows = [
        (
            artifact["metadata"]["kind"],
            artifact["metadata"]["accuracy"],
            artifact["metadata"]["f1"],
        )
        for artifact in artifacts
        if artifact["type"] == "system.Metrics"
    ]
    # A reused result may be known from more than one run.
    print(f"\n  {'model':22}{'accuracy':>10}{'macro F1':>10}")
    for kind, accuracy, score in sorted(set(rows), key=lambda row: -row[1]):
        print(f"  {kind:22}{accuracy:>10.4f}{score:>10.4f}")


def artifacts_of(host, run_id):
    """Every artifact that the run's tasks gave, reused ones included."""
    tasks = get(host, f"/apis/ferroflow/v1/runs/{run_id}/tasks")["tasks"]
    ids = {
        number
        for task in tasks
        for listed in task.get("output_artifacts", {}).values()
        for number in listed["ids"]
    }
    return [get(host, f"/apis/ferroflow/v1/artifacts/{number}") for number in sorted(ids, key=int)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="http://127.0.0.1:8080", help="where the platform is")
    host = parser.parse_args().host.rstrip("/")

    client = kfp.Client(host=host)
    run = client.create_run_from_pipeline_func(digits, arguments={}, experiment_name="digits")
    ended = follow(host, run.run_id)
    print(f"\n{ended['state'].capitalize()}: run {run.run_id}")
    if ended["state"] != "SUCCEEDED":
        print(ended.get("error", {}).get("message", ""), file=sys.stderr)
        return 1

    artifacts = artifacts_of(host, run.run_id)
    metrics_table(artifacts)
    by_type = {artifact["type"]: artifact for artifact in artifacts}
    if "system.HTML" not in by_type:
        print("\n  no model was good enough to be published")
        return 0
    chosen = next(one for one in artifacts if one.get("metadata", {}).get("published"))
    print(f"\n  chosen model  {chosen['metadata']['kind']}")
    print(f"  at            {chosen['uri']}")
    for kind in ("system.HTML", "system.Markdown"):
        artifact = by_type[kind]
        link = f"{host}/apis/ferroflow/v1/artifacts/{artifact['artifact_id']}/content"
        print(f"  report        {link}  ({artifact['name']})")
    print(f"  the run       {host}/#/runs/details/{run.run_id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
