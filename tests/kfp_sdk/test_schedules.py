"""Schedules: their times, what bad ones get, what becomes of their runs."""

import datetime
import json
import time

import kfp_server_api
import pytest


def eventually(what, holds, limit=60):
    deadline = time.monotonic() + limit
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def runs_of(client, recurring_run_id):
    predicate = {"operation": "EQUALS", "key": "recurring_run_id", "string_value": recurring_run_id}
    listed = client.list_runs(page_size=100, filter=json.dumps({"predicates": [predicate]}))
    return listed.runs or []


def test_a_recurring_run_through_the_sdk(client, package):
    experiment = client.create_experiment("recurring").experiment_id
    made = client.create_recurring_run(
        experiment,
        "sdk every second",
        cron_expression="* * * * * *",
        pipeline_package_path=package,
        params={"a": 20, "b": 22},
        max_concurrency=2,
        no_catchup=False,
    )
    assert made.status == "ENABLED" and made.mode == "ENABLE"
    assert made.trigger.cron_schedule.cron == "* * * * * *"
    runs = eventually("two runs", lambda: runs_of(client, made.recurring_run_id)[1:])
    run = client.wait_for_run_completion(runs[0].run_id, 60, 1)
    assert run.state == "SUCCEEDED"
    assert run.recurring_run_id == made.recurring_run_id
    assert run.experiment_id == experiment
    assert run.scheduled_at.microsecond == 0

    client.disable_recurring_run(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    client.enable_recurring_run(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "ENABLED"
    listed = client.list_recurring_runs(experiment_id=experiment, sort_by="created_at desc")
    assert [one.display_name for one in listed.recurring_runs] == ["sdk every second"]
    client.delete_recurring_run(made.recurring_run_id)
    with pytest.raises(kfp_server_api.ApiException) as error:
        client.get_recurring_run(made.recurring_run_id)
    assert error.value.status == 404
    assert runs_of(client, made.recurring_run_id), "its runs stay"


def test_a_frame_of_time_and_an_uploaded_version(client, package):
    pipeline = client.upload_pipeline(package, pipeline_name="recurring frame")
    versions = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    start = datetime.datetime(2026, 1, 1, 0, 0, 0, tzinfo=datetime.timezone.utc)
    made = client.create_recurring_run(
        client.create_experiment("recurring").experiment_id,
        "framed",
        start_time=start.isoformat(),
        end_time="2026-01-01T00:03:00Z",
        interval_second=60,
        pipeline_id=pipeline.pipeline_id,
        version_id=versions[0].pipeline_version_id,
        params={"a": 1, "b": 1},
        max_concurrency=10,
    )
    assert made.trigger.periodic_schedule.interval_second == "60"
    assert made.trigger.periodic_schedule.start_time == start
    runs = eventually("three runs", lambda: runs_of(client, made.recurring_run_id)[2:])
    time.sleep(1)
    minutes = sorted(run.scheduled_at.minute for run in runs_of(client, made.recurring_run_id))
    assert minutes == [1, 2, 3] and runs


def test_what_bad_schedules_get(client, package):
    def refused(**trigger):
        with pytest.raises(kfp_server_api.ApiException) as error:
            client.create_recurring_run("", "bad", pipeline_package_path=package,
                                        params={"a": 1, "b": 1}, **trigger)
        assert error.value.status == 400
        return error.value.body

    assert "minute" in refused(cron_expression="61 * * * *")
    assert "can never fire" in refused(cron_expression="0 0 30 2 *")
    assert "no time zone" in refused(cron_expression="CRON_TZ=Mars/Olympus 0 9 * * *")
    assert "at most 10" in refused(cron_expression="@daily", max_concurrency=11)
    assert "can never fire" in refused(interval_second=60, end_time="2020-01-01T00:00:00Z")
