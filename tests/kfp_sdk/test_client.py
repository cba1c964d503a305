"""What a data scientist does with kfp.Client, nothing patched."""

import json
import time

import kfp
import kfp_server_api
import pytest
from compatibility import covers
from pipelines import addition, script


def unique(name):
    return f"{name}-{time.monotonic_ns()}"


@covers("Client.get_kfp_healthz", "one user, no Kubernetes store")
def test_healthz(client):
    assert client.get_kfp_healthz().multi_user is False


@covers("Client.upload_pipeline", "a file with name and description")
@covers("Client.upload_pipeline_version", "a second version by the id of its pipeline")
@covers("Client.get_pipeline_id", "a name that is there, one that is not")
@covers("Client.get_pipeline", "by id")
@covers("Client.list_pipelines", "sorted")
@covers("Client.list_pipeline_versions", "newest first")
@covers("Client.get_pipeline_version", "with its specification")
@covers("Client.delete_pipeline", "with versions (refused) and without")
@covers("Client.delete_pipeline_version", "each of two")
def test_a_pipeline_and_its_versions(client, package):
    name = unique("addition")
    pipeline = client.upload_pipeline(package, pipeline_name=name, description="first")
    assert (pipeline.display_name, pipeline.description) == (name, "first")
    assert pipeline.created_at is not None

    version = client.upload_pipeline_version(
        package, pipeline_version_name="second", pipeline_id=pipeline.pipeline_id
    )
    assert version.pipeline_id == pipeline.pipeline_id

    assert client.get_pipeline_id(name) == pipeline.pipeline_id
    assert client.get_pipeline(pipeline.pipeline_id).display_name == name
    listed = client.list_pipelines(page_size=100, sort_by="created_at desc").pipelines
    assert name in [one.display_name for one in listed]
    versions = client.list_pipeline_versions(pipeline.pipeline_id, sort_by="created_at desc")
    assert [one.display_name for one in versions.pipeline_versions] == ["second", name]
    found = client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    assert found.pipeline_spec["pipelineInfo"]["name"] == "addition"

    with pytest.raises(kfp_server_api.ApiException) as refused:
        client.delete_pipeline(pipeline.pipeline_id)
    assert refused.value.status == 400
    for one in versions.pipeline_versions:
        client.delete_pipeline_version(pipeline.pipeline_id, one.pipeline_version_id)
    client.delete_pipeline(pipeline.pipeline_id)
    assert client.get_pipeline_id(name) is None


@covers("Client.upload_pipeline_from_pipeline_func", "with a description")
@covers("Client.upload_pipeline_version_from_pipeline_func", "by the name of its pipeline")
def test_functions_are_uploaded(client):
    name = unique("function")
    pipeline = client.upload_pipeline_from_pipeline_func(
        addition, pipeline_name=name, description="words"
    )
    assert (pipeline.display_name, pipeline.description) == (name, "words")
    version = client.upload_pipeline_version_from_pipeline_func(
        script, "second", pipeline_name=name, description="more words"
    )
    assert (version.pipeline_id, version.description) == (pipeline.pipeline_id, "more words")
    found = client.get_pipeline_version(pipeline.pipeline_id, version.pipeline_version_id)
    assert found.pipeline_spec["pipelineInfo"]["name"] == "script"


@covers("Client.set_user_namespace", "kept in the SDK's context file", "works; there is one namespace")
@covers("Client.get_user_namespace", "what was set", "works; there is one namespace")
def test_the_namespace_of_the_context(client, platform):
    client.set_user_namespace("team")
    try:
        assert client.get_user_namespace() == "team"
        assert kfp.Client(host=platform.url).get_user_namespace() == "team"
        named = client.list_experiments(namespace="team").total_size
        assert named == client.list_experiments().total_size
    finally:
        client.set_user_namespace("")


@covers("Client.list_pipelines", "pages with a filter")
def test_pages_of_pipelines(client, package):
    prefix = unique("page")
    for number in range(5):
        client.upload_pipeline(package, pipeline_name=f"{prefix}-{number}")
    text = '{"predicates":[{"operation":9,"key":"display_name","stringValue":"%s"}]}' % prefix
    names, token = [], ""
    while True:
        page = client.list_pipelines(
            page_token=token, page_size=2, sort_by="display_name desc", filter=text
        )
        assert page.total_size == 5
        names += [one.display_name for one in page.pipelines]
        token = page.next_page_token
        if not token:
            break
    assert names == [f"{prefix}-{number}" for number in reversed(range(5))]


@covers("Client.create_experiment", "a new one; one that is there")
@covers("Client.get_experiment", "by name, by id, one that is gone")
@covers("Client.list_experiments", "sorted, by page, filtered by state")
@covers("Client.archive_experiment", "and its state")
@covers("Client.unarchive_experiment", "one that is archived")
@covers("Client.delete_experiment", "an own one")
def test_experiments(client):
    name = unique("experiment")
    made = client.create_experiment(name, description="words")
    assert client.create_experiment(name).experiment_id == made.experiment_id
    assert client.get_experiment(experiment_name=name).description == "words"
    client.archive_experiment(made.experiment_id)
    assert client.get_experiment(made.experiment_id).storage_state == "ARCHIVED"
    archived = json.dumps({"predicates": [
        {"operation": "EQUALS", "key": "storage_state", "stringValue": "ARCHIVED"},
        {"operation": "EQUALS", "key": "display_name", "stringValue": name},
    ]})
    listed = client.list_experiments(page_size=1, sort_by="created_at desc", filter=archived)
    assert [one.experiment_id for one in listed.experiments] == [made.experiment_id]
    client.unarchive_experiment(made.experiment_id)
    assert client.list_experiments(filter=archived).experiments is None
    client.delete_experiment(made.experiment_id)
    with pytest.raises(kfp_server_api.ApiException) as missing:
        client.get_experiment(made.experiment_id)
    assert missing.value.status == 404


@covers("Client.create_run_from_pipeline_func", "with arguments, into the default experiment")
@covers("Client.wait_for_run_completion", "until it succeeds")
def test_a_run_from_a_function(client):
    result = client.create_run_from_pipeline_func(addition, arguments={"a": 3, "b": 4})
    run = client.wait_for_run_completion(result.run_id, timeout=300, sleep_duration=1)
    assert run.state == "SUCCEEDED"
    assert run.finished_at >= run.created_at
    assert [one.state for one in run.state_history] == ["PENDING", "RUNNING", "SUCCEEDED"]

    tasks = {one.display_name: one for one in run.run_details.task_details}
    assert set(tasks) == {"root", "add", "add-2"}
    assert all(one.state == "SUCCEEDED" for one in tasks.values())
    assert tasks["add"].parent_task_id == tasks["root"].task_id
    assert tasks["add"].start_time is not None
    children = {child.task_id for child in tasks["root"].child_tasks}
    assert children == {tasks["add"].task_id, tasks["add-2"].task_id}


@covers("Client.create_run_from_pipeline_package", "into a named experiment; again, from the cache")
@covers("Client.list_runs", "of an experiment")
def test_a_run_from_a_package_is_reused_by_the_next_one(client, package):
    experiment = unique("cached")
    first = client.create_run_from_pipeline_package(
        package, arguments={"a": 100, "b": 1}, experiment_name=experiment
    )
    assert client.wait_for_run_completion(first.run_id, 300, 1).state == "SUCCEEDED"
    second = client.create_run_from_pipeline_package(
        package, arguments={"a": 100, "b": 1}, experiment_name=experiment
    )
    run = client.wait_for_run_completion(second.run_id, 300, 1)
    assert run.state == "SUCCEEDED"
    assert (run.finished_at - run.created_at).total_seconds() < 5
    listed = client.list_runs(experiment_id=run.experiment_id, sort_by="created_at desc")
    assert [one.run_id for one in listed.runs] == [second.run_id, first.run_id]


@covers("Client.run_pipeline", "a stored version with parameters")
def test_run_pipeline_with_parameters(client, package):
    pipeline = client.upload_pipeline(package, pipeline_name=unique("stored"))
    version = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions[0]
    experiment = client.create_experiment(unique("stored"))
    run = client.run_pipeline(
        experiment.experiment_id,
        "stored run",
        params={"a": 5},
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
    )
    ended = client.wait_for_run_completion(run.run_id, 300, 1)
    assert ended.state == "SUCCEEDED"
    assert ended.runtime_config.parameters == {"a": 5}
    reference = ended.pipeline_version_reference
    assert reference.pipeline_version_id == version.pipeline_version_id


@covers("Client.get_run", "while it runs, when it has ended, when it is gone")
@covers("Client.terminate_run", "a running one: it ends as FAILED with code 1, as the SDK expects")
@covers("Client.archive_run", "one that has ended")
@covers("Client.unarchive_run", "one that is archived")
@covers("Client.delete_run", "one that has ended")
def test_terminate_archive_delete(client):
    started = client.create_run_from_pipeline_func(script, arguments={"script": "sleep 100"})
    while client.get_run(started.run_id).state != "RUNNING":
        time.sleep(0.05)
    client.terminate_run(started.run_id)
    ended = client.wait_for_run_completion(started.run_id, timeout=30, sleep_duration=1)
    assert (ended.state, ended.error.code) == ("FAILED", 1)

    client.archive_run(started.run_id)
    assert client.get_run(started.run_id).storage_state == "ARCHIVED"
    client.unarchive_run(started.run_id)
    client.delete_run(started.run_id)
    with pytest.raises(kfp_server_api.ApiException) as missing:
        client.get_run(started.run_id)
    assert missing.value.status == 404


@covers("RunServiceApi.run_service_retry_run", "a failed run: it succeeds")
def test_a_failed_run_is_retried(client, generated, tmp_path):
    mark = tmp_path / "mark"
    text = f"if [ -e {mark} ]; then exit 0; fi; touch {mark}; echo not yet; exit 5"
    started = client.create_run_from_pipeline_func(script, arguments={"script": text})
    failed = client.wait_for_run_completion(started.run_id, 60, 1)
    assert failed.state == "FAILED"
    assert "exit code 5" in failed.error.message
    task = [one for one in failed.run_details.task_details if one.display_name == "shell"][0]
    assert "not yet" in task.error.message

    generated("RunServiceApi").run_service_retry_run(run_id=started.run_id)
    assert client.wait_for_run_completion(started.run_id, 60, 1).state == "SUCCEEDED"


def refused(call):
    with pytest.raises(kfp_server_api.ApiException) as error:
        call()
    return error.value


def test_what_bad_input_gets(client, package, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("components_1: {}\npipelineInfo: {name: x}\nroot: {}\n")
    error = refused(lambda: client.upload_pipeline(str(wrong), pipeline_name=unique("wrong")))
    assert error.status == 400 and "components_1" in error.body

    name = unique("twice")
    client.upload_pipeline(package, pipeline_name=name)
    error = refused(lambda: client.upload_pipeline(package, pipeline_name=name))
    assert error.status == 409 and name in error.body

    error = refused(lambda: client.upload_pipeline(package, pipeline_name="n" * 200))
    assert error.status == 400 and "length cannot exceed 128" in error.body

    run = lambda arguments: client.create_run_from_pipeline_package(package, arguments=arguments)
    error = refused(lambda: run({"a": "text"}))
    assert error.status == 400 and "requires type integer" in error.body
    error = refused(lambda: run({"zz": 1}))
    assert error.status == 400 and "not required by pipeline: zz" in error.body

    error = refused(lambda: client.list_pipelines(page_token="nonsense"))
    assert error.status == 400 and "page token" in error.body
    error = refused(lambda: client.list_runs(sort_by="colour"))
    assert error.status == 400 and "colour" in error.body
    error = refused(lambda: client.get_run("not-an-id"))
    assert error.status == 400 and "run_id" in error.body
    error = refused(lambda: client.get_run("00000000-0000-4000-8000-000000000000"))
    assert error.status == 404
