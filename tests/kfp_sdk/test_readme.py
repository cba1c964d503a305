"""The README's two ways to create a run, taken from its text, each first on a fresh folder."""

import pathlib
import re
import shlex

import kfp
import pytest
from conftest import ROOT, Platform
from kfp import dsl

README = (ROOT / "README.md").read_text()


@dsl.container_component
def say(text: str):
    return dsl.ContainerSpec(image="busybox", command=["echo"], args=[text])


@dsl.pipeline(name="my-pipeline")
def my_pipeline(k: str):
    say(text=k)


def python_snippet():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if "kfp.Client(" in block)


def command_snippet():
    lines = (line.split(" #")[0].strip() for line in README.splitlines())
    return next(line for line in lines if line.startswith("ferroflow run submit "))


def run_python(platform, folder):
    text = python_snippet().replace("http://127.0.0.1:8080", platform.url)
    assert platform.url in text
    exec(compile(text, "README.md", "exec"), {"my_pipeline": my_pipeline})


def run_command(platform, folder):
    words = shlex.split(command_snippet())
    kfp.compiler.Compiler().compile(my_pipeline, str(folder / words[3]))
    platform.ferroflow(*words[1:], cwd=folder)


@pytest.mark.parametrize("order", ["python first", "command first"])
def test_both_snippets_work_on_a_fresh_folder(tmp_path, order):
    platform = Platform(tmp_path).start()
    try:
        ways = [run_python, run_command]
        if order == "command first":
            ways.reverse()
        for way in ways:
            way(platform, pathlib.Path(tmp_path))
        client = kfp.Client(host=platform.url)
        runs = client.list_runs(page_size=100).runs
        assert len(runs) == 2
        for run in runs:
            assert client.wait_for_run_completion(run.run_id, 60, 1).state == "SUCCEEDED"
        assert len({run.experiment_id for run in runs}) == 1
        names = [one.display_name for one in client.list_experiments().experiments]
        assert names == ["Default"]
    finally:
        platform.stop()
