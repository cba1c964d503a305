"""Values far beyond what the kernel passes in one word of a command."""

import json
import os
import urllib.parse

import kfp_server_api
import pytest
import requests
from kfp import dsl

MIB = 1024 * 1024


@dsl.component(base_image="python:3.11")
def give(size: int, character: str) -> str:
    return character * size


@dsl.component(base_image="python:3.11")
def measure(text: str, struct: dict, given: str) -> dict:
    assert set(text) == {"t"} and set(given) == {"g"}
    return {"text": len(text), "given": len(given), "list": len(struct["list"])}


@dsl.pipeline(name="large-values")
def large_values(text: str, struct: dict) -> dict:
    given = give(size=MIB, character="g")
    return measure(text=text, struct=struct, given=given.output).output


@dsl.component(base_image="python:3.11")
def curve(points: int, roc: dsl.Output[dsl.ClassificationMetrics]):
    rates = [at / points for at in range(points)]
    roc.log_roc_curve(rates, rates, rates)


@dsl.component(base_image="python:3.11")
def read_curve(roc: dsl.Input[dsl.ClassificationMetrics]) -> int:
    return len(roc.metadata["confidenceMetrics"])


@dsl.pipeline(name="curve")
def curves() -> int:
    return read_curve(roc=curve(points=5000).outputs["roc"]).output


@dsl.container_component
def write(number: int, item: dsl.Output[dsl.Artifact]):
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", 'printf "$0" > "$1"'], args=[number, item.path]
    )


@dsl.component(base_image="python:3.11")
def total(items: dsl.Input[list[dsl.Artifact]]) -> int:
    numbers = []
    for item in items:
        with open(item.path) as file:
            numbers.append(int(float(file.read())))
    assert len(numbers) == len(items)
    return sum(numbers)


@dsl.pipeline(name="collected")
def collected(numbers: list) -> int:
    with dsl.ParallelFor(items=numbers) as number:
        written = write(number=number)
    return total(items=dsl.Collected(written.outputs["item"])).output


def run_to_its_end(client, pipeline, arguments):
    run = client.create_run_from_pipeline_func(pipeline, arguments=arguments, enable_caching=False)
    return client.wait_for_run_completion(run.run_id, timeout=600, sleep_duration=1)


def output_of(platform, run_id):
    return platform.tasks(run_id)["root"]["output_parameters"]["Output"]


def test_texts_and_structs_of_a_mebibyte(client, platform):
    struct = {"list": list(range(100_000))}
    ended = run_to_its_end(client, large_values, {"text": "t" * MIB, "struct": struct})

    assert ended.state == "SUCCEEDED", ended.error
    measured = output_of(platform, ended.run_id)
    assert measured == {"text": MIB, "given": MIB, "list": 100_000}
    # Lists show that there is a value, and where.
    task = platform.tasks(ended.run_id)["root.measure"]
    assert sorted(task["elided"]) == [
        "input_parameters.given",
        "input_parameters.struct",
        "input_parameters.text",
    ]
    assert "text" not in task["input_parameters"]
    url = f"{platform.url}/apis/ferroflow/v1/runs/{ended.run_id}/tasks/{task['task_id']}"
    assert requests.get(url, timeout=60).json()["input_parameters"]["text"] == "t" * MIB
    read = requests.get(f"{url}/parameters/struct", timeout=60)
    assert read.headers["content-type"] == "application/json"
    assert read.json() == struct
    missing = requests.get(f"{url}/parameters/{urllib.parse.quote('no such')}", timeout=60)
    assert missing.status_code == 404
    listed = client.list_runs(page_size=100).runs
    shown = next(run for run in listed if run.run_id == ended.run_id)
    assert "GetRun" in shown.runtime_config.parameters["text"]
    whole = client.get_run(ended.run_id)
    assert whole.runtime_config.parameters["text"] == "t" * MIB


def test_metrics_with_five_thousand_points_are_inputs(client, platform):
    ended = run_to_its_end(client, curves, {})

    assert ended.state == "SUCCEEDED", ended.error
    assert output_of(platform, ended.run_id) == 5000


def test_a_thousand_artifacts_are_collected(client, platform):
    ended = run_to_its_end(client, collected, {"numbers": list(range(1000))})

    assert ended.state == "SUCCEEDED", ended.error
    assert output_of(platform, ended.run_id) == sum(range(1000))


def test_an_embedded_artifact_of_a_mebibyte(client, platform, tmp_path):
    asset = tmp_path / "asset.bin"
    asset.write_bytes(os.urandom(MIB))

    @dsl.component(base_image="python:3.11", embedded_artifact_path=str(asset))
    def embedded(asset: dsl.EmbeddedInput[dsl.Dataset]) -> int:
        import os

        return os.path.getsize(asset.path)

    @dsl.pipeline(name="embedded")
    def pipeline() -> int:
        return embedded().output

    ended = run_to_its_end(client, pipeline, {})

    assert ended.state == "SUCCEEDED", ended.error
    assert output_of(platform, ended.run_id) == MIB


@dsl.container_component
def echo(text: str):
    return dsl.ContainerSpec(image="busybox", command=["echo"], args=[text])


@dsl.pipeline(name="echo")
def echoes(text: str):
    echo(text=text)


def test_a_command_that_cannot_be_given_a_value_says_which(client, platform):
    ended = run_to_its_end(client, echoes, {"text": "x" * 200_000})

    assert ended.state == "FAILED"
    message = platform.tasks(ended.run_id)["root.echo"]["error"]["message"]
    for named in ["input parameter text of 200000 bytes", "131072", "artifact"]:
        assert named in message, message


def test_a_value_beyond_the_limit_is_refused_by_name(client):
    with pytest.raises(kfp_server_api.ApiException) as refused:
        client.create_run_from_pipeline_func(echoes, arguments={"text": "x" * (16 * MIB + 1)})

    assert refused.value.status == 400
    said = json.dumps(json.loads(refused.value.body))
    assert "runtime_config.parameters.text" in said and "value_max" in said, said


@dsl.pipeline(name="too-large")
def too_large(size: int) -> str:
    return give(size=size, character="x").output


def test_an_output_beyond_the_limit_fails_its_task_by_name(client, platform):
    ended = run_to_its_end(client, too_large, {"size": 16 * MIB + 1})

    assert ended.state == "FAILED"
    message = platform.tasks(ended.run_id)["root.give"]["error"]["message"]
    assert "output Output" in message and "value_max" in message, message
