"""What the stock compiler writes about values, run as it is."""

from typing import List

import pytest
from kfp import dsl


@dsl.container_component
def numbers(out: dsl.OutputPath(list)):
    return dsl.ContainerSpec(image="busybox", command=["sh", "-c", 'echo "[1, 2]" > "$0"', out])


@dsl.container_component
def add_one(x: int, out: dsl.OutputPath(int)):
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", 'echo $(($0 + 1)) > "$1"', x, out]
    )


@dsl.container_component
def say(x: str, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image="busybox", command=["sh", "-c", 'printf %s "$0" > "$1"', x, out])


@dsl.container_component
def report(path: str, told: str):
    script = 'printf "{\\"parameterValues\\": {}}" > "$0"; case "$1" in *outputFile*) ;; *) exit 1;; esac'
    return dsl.ContainerSpec(image="busybox", command=["sh", "-ec", script, path, told])


@dsl.component(task_config_passthroughs=[dsl.TaskConfigField.RESOURCES], packages_to_install=[])
def configured(config: dsl.TaskConfig):
    assert config.resources == {"limits": {"cpu": "1"}}, config
    assert config.env is None


@dsl.pipeline(name="items")
def items():
    made = numbers()
    # The compiler knows that it is a list, and not of what.
    with dsl.ParallelFor(made.outputs["out"]) as item:
        with dsl.If(item == 2):
            add_one(x=item)
        say(x=item)


@dsl.pipeline(name="leaks")
def leaks(text: str = "x"):
    with dsl.ExitHandler(say(x=text)):
        with dsl.ParallelFor([1, 2]) as item:
            say(x=f"{item} {text}")


@dsl.pipeline(name="executor")
def executor():
    report(
        path=dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER,
        told=dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
    )


@dsl.pipeline(name="texts")
def texts(text: str, doubles: List[float]):
    say(x=text)
    for constant in ["n", "1e3", "0o7", "{{$.pipeline_job_name", "a: b # c"]:
        say(x=constant)


@dsl.pipeline(name="configured")
def with_config():
    configured().set_cpu_limit("1")


def outputs(platform, run_id):
    tasks = platform.tasks(run_id).items()
    return {path: task.get("output_parameters", {}).get("out") for path, task in tasks}


def run(client, platform, pipeline, arguments=None):
    created = client.create_run_from_pipeline_func(pipeline, arguments, enable_caching=False)
    ended = client.wait_for_run_completion(created.run_id, timeout=300, sleep_duration=1)
    assert ended.state == "SUCCEEDED", ended.error
    return created.run_id, outputs(platform, created.run_id)


def test_items_of_an_unknown_type_are_numbers_where_numbers_are_wanted(client, platform):
    _, out = run(client, platform, items)
    assert [value for path, value in sorted(out.items()) if path.endswith(".add-one")] == [3]
    assert [value for path, value in sorted(out.items()) if path.endswith(".say")] == ["1", "2"]


def test_inputs_that_the_compiler_leaks_out_of_loops_are_not_required(client, platform):
    _, out = run(client, platform, leaks)
    assert out["root.exit-handler-1.for-loop-3.1.say-2"] == "2 x"


def test_a_task_may_be_given_its_executors_input_and_output_path(client, platform):
    run(client, platform, executor)


def test_texts_and_numbers_arrive_as_they_were_written(client, platform):
    doubles = [0.1, 1e-300, 5e-324, 2.0**53, -0.0, 123456789.123456789]
    given = {"text": "{{$.pipeline_job_uuid}} [[x]]", "doubles": doubles}
    run_id, out = run(client, platform, texts, given)
    assert sorted(value for path, value in out.items() if path != "root") == sorted(
        [given["text"], "n", "1e3", "0o7", "{{$.pipeline_job_name", "a: b # c"]
    )
    shown = client.get_run(run_id).runtime_config.parameters["doubles"]
    assert [repr(float(one)) for one in shown] == [repr(one) for one in doubles]


def test_a_component_is_told_its_configuration(client, platform):
    run(client, platform, with_config)


def test_nan_is_refused(client):
    # The SDK sends it as a bare word, which is no JSON.
    with pytest.raises(Exception, match="the body is not a Run"):
        client.create_run_from_pipeline_func(
            texts, {"text": "x", "doubles": [float("nan")]}, enable_caching=False
        )
