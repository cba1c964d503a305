"""Recurring runs through kfp.Client and the command line."""

import json
import time

import kfp_server_api
import pytest
from compatibility import covers
from test_cli import made, unique


def wait_for(what, limit=60):
    deadline = time.monotonic() + limit
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


@covers("Client.create_recurring_run", "every second, from a file: runs come; cron, disabled")
@covers("Client.list_recurring_runs", "of an experiment")
@covers("Client.get_recurring_run", "enabled and disabled")
@covers("Client.disable_recurring_run", "no further run comes")
@covers("Client.enable_recurring_run", "one that is disabled")
@covers("Client.delete_recurring_run", "its runs stay")
def test_recurring_runs(client, quick_package):
    experiment = client.create_experiment(unique("recurring")).experiment_id
    every = client.create_recurring_run(
        experiment, "every second", interval_second=1, max_concurrency=2, no_catchup=True,
        params={"script": "true"}, pipeline_package_path=quick_package,
    )
    assert (every.status, every.max_concurrency) == ("ENABLED", "2")
    assert every.trigger.periodic_schedule.interval_second == "1"

    def runs():
        return client.list_runs(experiment_id=experiment, page_size=100).runs or []

    wait_for(lambda: len(runs()) >= 2)
    first = runs()[0]
    assert first.recurring_run_id == every.recurring_run_id
    assert client.wait_for_run_completion(first.run_id, 60, 1).state == "SUCCEEDED"

    client.disable_recurring_run(every.recurring_run_id)
    assert client.get_recurring_run(every.recurring_run_id).status == "DISABLED"
    count = len(runs())
    time.sleep(2.5)
    assert len(runs()) == count
    client.enable_recurring_run(every.recurring_run_id)
    assert client.get_recurring_run(every.recurring_run_id).status == "ENABLED"

    cron = client.create_recurring_run(
        experiment, "at night", cron_expression="0 0 2 * * *", enabled=False,
        start_time="2030-01-01T00:00:00Z", pipeline_package_path=quick_package,
    )
    assert (cron.status, cron.trigger.cron_schedule.cron) == ("DISABLED", "0 0 2 * * *")
    listed = client.list_recurring_runs(experiment_id=experiment, sort_by="created_at desc")
    names = [one.display_name for one in listed.recurring_runs]
    assert names == ["at night", "every second"]

    client.delete_recurring_run(every.recurring_run_id)
    client.delete_recurring_run(cron.recurring_run_id)
    assert client.list_recurring_runs(experiment_id=experiment).recurring_runs is None
    assert len(runs()) >= count
    with pytest.raises(kfp_server_api.ApiException) as missing:
        client.get_recurring_run(cron.recurring_run_id)
    assert missing.value.status == 404


@covers("Client.disable_job", "the former name")
@covers("Client.enable_job", "the former name")
@covers("Client.delete_job", "the former name")
def test_former_names(client, quick_package):
    experiment = client.create_experiment(unique("jobs")).experiment_id
    job = client.create_recurring_run(
        experiment, "job", interval_second=3600, pipeline_package_path=quick_package
    ).recurring_run_id
    client.disable_job(job)
    assert client.get_recurring_run(job).status == "DISABLED"
    client.enable_job(job)
    assert client.get_recurring_run(job).status == "ENABLED"
    client.delete_job(job)
    assert client.list_recurring_runs(experiment_id=experiment).recurring_runs is None


@covers("kfp recurring-run create", "with an interval, enabled; with cron, which comes disabled")
@covers("kfp recurring-run list", "of an experiment; as a table")
@covers("kfp recurring-run get", "by id")
@covers("kfp recurring-run enable", "one that is disabled")
@covers("kfp recurring-run disable", "one that is enabled")
@covers("kfp recurring-run delete", "confirmed")
def test_the_command_line(command, client, quick_package):
    name = unique("recurring-cli")
    source = ["--pipeline-package-path", quick_package, "--experiment-name", name]
    hourly = made(command("recurring-run", "create", "--job-name", "hourly", "--enabled",
                          "--interval-second", "3600", *source, "script=true"))
    assert (hourly["display_name"], hourly["status"]) == ("hourly", "ENABLED")
    cron = made(command("recurring-run", "create", "--job-name", "cron",
                        "--cron-expression", "0 0 2 * * *", *source))
    assert cron["status"] == "DISABLED"
    cron = cron["recurring_run_id"]

    experiment = client.get_experiment(experiment_name=name).experiment_id
    listed = json.loads(command("recurring-run", "list", "-e", experiment))
    assert [one["display_name"] for one in listed] == ["cron", "hourly"]
    assert "hourly" in command("recurring-run", "list", "-e", experiment, output="table")
    assert made(command("recurring-run", "get", cron))["display_name"] == "cron"
    assert made(command("recurring-run", "enable", cron))["status"] == "ENABLED"
    assert made(command("recurring-run", "disable", cron))["status"] == "DISABLED"
    for one in listed:
        command("recurring-run", "delete", one["recurring_run_id"], answer="y\n")
    assert json.loads(command("recurring-run", "list", "-e", experiment)) == []
