"""What the stock SDK is told of a task that failed."""

from kfp import dsl

CAUSE = "AssertionError: only 4 words, wanted 9"


@dsl.component(base_image="python:3.11")
def count(wanted: int):
    words = "to be or not".split()
    assert len(words) == wanted, f"only {len(words)} words, wanted {wanted}"


@dsl.component(base_image="python:3.11")
def tell(status: dsl.PipelineTaskFinalStatus, message: dsl.OutputPath(str)):
    with open(message, "w") as out:
        out.write(f"{status.state}|{status.pipeline_task_name}|{status.error_message}")


@dsl.pipeline(name="causes")
def causes():
    with dsl.ExitHandler(tell()):
        count(wanted=9)


def test_the_cause_is_told_to_clients_and_to_exit_tasks(client, platform):
    started = client.create_run_from_pipeline_func(causes)
    ended = client.wait_for_run_completion(started.run_id, 300, 1)

    assert ended.state == "FAILED"
    why = f"task exit-handler-1.count failed: {CAUSE}"
    assert ended.error.message == why
    (task,) = [one for one in ended.run_details.task_details if one.display_name == "count"]
    first, log = task.error.message.split("\n", 1)
    assert first == CAUSE
    assert log.endswith(CAUSE) and "Traceback (most recent call last)" in log

    tasks = platform.tasks(started.run_id).values()
    (exit_task,) = [one for one in tasks if one["name"] == "tell"]
    assert exit_task["output_parameters"]["message"] == f"FAILED|exit-handler-1|{why}"
