"""The stock kfp command line, every subcommand that talks to a server."""

import json
import pathlib
import subprocess
import sys
import time

import pytest
from compatibility import covers

MISSING = "00000000-0000-4000-8000-000000000000"


def unique(name):
    return f"{name}-{time.monotonic_ns()}"


def made(said):
    """The object in what a command printed."""
    return json.loads(said[said.index("{") :])


def listed(said):
    return json.loads(said)


@covers("kfp pipeline create", "a file with name and description")
@covers("kfp pipeline create-version", "by the id and by the name of its pipeline")
@covers("kfp pipeline get", "by id; one that is not there")
@covers("kfp pipeline get-version", "by id")
@covers("kfp pipeline list", "filtered")
@covers("kfp pipeline list-versions", "newest first")
@covers("kfp pipeline delete-version", "each; not confirmed")
@covers("kfp pipeline delete", "with versions (refused) and without")
def test_pipelines(command, client, package):
    name = unique("from-cli")
    pipeline = made(command("pipeline", "create", "-p", name, "-d", "words", package))
    assert pipeline["display_name"] == name
    pipeline = pipeline["pipeline_id"]
    second = ("pipeline", "create-version", "-v", "second", "-p", pipeline, package)
    assert made(command(*second))["display_name"] == "second"
    third = ("pipeline", "create-version", "-v", "third", "-n", name, package)
    assert made(command(*third))["display_name"] == "third"

    assert made(command("pipeline", "get", pipeline))["display_name"] == name
    assert "not found" in command("pipeline", "get", MISSING, fails=True)
    equal = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    found = listed(command("pipeline", "list", "--filter", json.dumps(equal)))
    assert [one["pipeline_id"] for one in found] == [pipeline]
    assert name in command("pipeline", "list", output="table")

    versions = listed(command("pipeline", "list-versions", pipeline))
    assert [one["display_name"] for one in versions] == ["third", "second", name]
    ids = [one["pipeline_version_id"] for one in versions]
    got = made(command("pipeline", "get-version", pipeline, ids[0]))
    assert got["display_name"] == "third"

    assert "existing pipeline versions" in command(
        "pipeline", "delete", pipeline, answer="y\n", fails=True
    )
    command("pipeline", "delete-version", pipeline, ids[0], answer="n\n")
    assert len(client.list_pipeline_versions(pipeline).pipeline_versions) == 3
    for one in ids:
        command("pipeline", "delete-version", pipeline, one, answer="y\n")
    command("pipeline", "delete", pipeline, answer="y\n")
    assert client.get_pipeline_id(name) is None


@covers("kfp pipeline upload", "the former name of `create`")
@covers("kfp pipeline upload-version", "the former name of `create-version`")
@covers("kfp run submit", "the former name of `run create`")
def test_former_names(command, quick_package):
    name = unique("former")
    pipeline = made(command("pipeline", "upload", "-p", name, quick_package))["pipeline_id"]
    version = ("pipeline", "upload-version", "-v", "v2", "-p", pipeline, quick_package)
    assert made(command(*version))["display_name"] == "v2"
    run = made(command("run", "submit", "-e", name, "-f", quick_package))
    assert run["display_name"] == name


@covers("kfp experiment create", "with a description")
@covers("kfp experiment list", "filtered; as a table")
@covers("kfp experiment get", "by id")
@covers("kfp experiment archive", "by id and by name")
@covers("kfp experiment unarchive", "by id and by name")
@covers("kfp experiment delete", "confirmed")
def test_experiments(command):
    name = unique("cli")
    experiment = made(command("experiment", "create", "-d", "words", name))["experiment_id"]
    assert made(command("experiment", "get", experiment))["description"] == "words"
    equal = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    found = listed(command("experiment", "list", "--filter", json.dumps(equal)))
    assert [one["experiment_id"] for one in found] == [experiment]
    assert name in command("experiment", "list", output="table")
    for named in (["--experiment-id", experiment], ["--experiment-name", name]):
        archived = made(command("experiment", "archive", *named))
        assert archived["storage_state"] == "ARCHIVED"
        back = made(command("experiment", "unarchive", *named))
        assert back["storage_state"] == "AVAILABLE"
    command("experiment", "delete", experiment, answer="y\n")
    assert "not found" in command("experiment", "get", experiment, fails=True)


@covers("kfp run create", "a file with parameters, watched; a stored version, with a timeout")
@covers("kfp run get", "one that has ended, with details")
@covers("kfp run list", "of an experiment; as a table")
@covers("kfp run archive", "one that has ended")
@covers("kfp run unarchive", "one that is archived")
@covers("kfp run delete", "confirmed")
def test_runs(command, client, package):
    name = unique("cli")
    watched = command("run", "create", "-e", name, "-f", package, "-w", "a=20", "b=22")
    assert "Run is finished with state SUCCEEDED." in watched
    pipeline = client.upload_pipeline(package, pipeline_name=name)
    version = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions[0]
    source = ["-n", name, "-v", version.pipeline_version_id]
    ran = made(command("run", "create", "-e", name, "-r", "stored", *source, "-t", "120", "a=20"))
    assert (ran["display_name"], ran["state"]) == ("stored", "SUCCEEDED")
    run = ran["run_id"]

    got = made(command("run", "get", "--detail", run))
    assert got["run_details"]["task_details"]
    runs = listed(command("run", "list", "-e", ran["experiment_id"]))
    assert [one["display_name"] for one in runs] == ["stored", name]
    assert "SUCCEEDED" in command("run", "list", output="table")
    assert made(command("run", "archive", run))["storage_state"] == "ARCHIVED"
    assert made(command("run", "unarchive", run))["storage_state"] == "AVAILABLE"
    command("run", "delete", run, answer="y\n")
    assert "not found" in command("run", "get", run, fails=True)


def test_the_installed_command(platform, client):
    tool = pathlib.Path(sys.executable).with_name("kfp")
    words = [tool, "--endpoint", platform.url, "experiment", "list"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "Default" in said


def test_what_is_wrong_is_said(command, package):
    said = command("run", "create", "-e", "wrong", "-f", package, "a=text", fails=True)
    assert "requires type integer" in said
    assert "blanks only" in command("experiment", "create", "  ", fails=True)


@pytest.mark.parametrize("shown", ["table", "json"])
def test_empty_lists_print(command, shown):
    none = {"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": "no such"}]}
    for noun in ("pipeline", "experiment", "run"):
        command(noun, "list", "--filter", json.dumps(none), output=shown)
