"""What the quickstart's pipeline prints while it runs."""

import pathlib
import sys

import pytest

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples/digits"


@pytest.fixture
def told(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in ("run", "pipeline"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import run

    return run.told


def test_every_step_of_a_task_is_told(told):
    task = {"path": "root.for-loop-1.0.train"}
    assert told(task) is None
    assert told({**task, "state": "RUNNING"}) == "running    for-loop-1.0.train"
    waiting = {**task, "state": "RUNNING", "note": "building an environment"}
    assert told(waiting) == "waiting    for-loop-1.0.train: building an environment"
    assert told({**task, "state": "CACHED"}) == "cached     for-loop-1.0.train"
