"""Input artifacts of Python components, whatever way they come."""

import kfp
import pytest
from conftest import Platform
from kfp import dsl
from kfp.dsl import Artifact, Input, Model, Output


@dsl.component
def make(out: Output[Artifact]):
    with open(out.path, "w") as file:
        file.write("made")


@dsl.component
def overwrite(given: Input[Artifact], kept: Output[Artifact]) -> str:
    try:
        with open(given.path, "w") as file:
            file.write("changed")
    except OSError as error:
        print(error)
    # The input itself, handed on.
    kept.uri = given.uri
    return given.uri


@dsl.component
def read(given: Input[Artifact]) -> str:
    with open(given.path) as file:
        return file.read()


@dsl.pipeline
def changes():
    made = make().set_caching_options(False)
    changed = overwrite(given=made.outputs["out"])
    read(given=made.outputs["out"]).after(changed)
    read(given=changed.outputs["kept"])


@dsl.pipeline
def imports(uri: str):
    imported = dsl.importer(artifact_uri=uri, artifact_class=Model, reimport=True)
    read(given=imported.output)


def results(platform, run_id):
    """What the reading tasks of a run gave."""
    tasks = platform.tasks(run_id).values()
    read = [task for task in tasks if task["name"].startswith("read")]
    return [task["output_parameters"]["Output"] for task in read]


@pytest.mark.parametrize("how", ["copy", "auto"])
def test_no_step_changes_what_another_reads(tmp_path, how):
    platform = Platform(tmp_path, "--process-inputs", how).start()
    try:
        client = kfp.Client(host=platform.url)
        run = client.create_run_from_pipeline_func(changes, arguments={})
        assert client.wait_for_run_completion(run.run_id, 120, 1).state == "SUCCEEDED"
        assert results(platform, run.run_id) == ["made", "made"]
    finally:
        platform.stop()


@pytest.mark.parametrize("how", ["copy", "auto"])
def test_files_are_imported_by_their_uri(tmp_path, how):
    platform = Platform(tmp_path, "--process-inputs", how).start()
    file = tmp_path / "a model"
    file.write_text("of this machine")
    try:
        client = kfp.Client(host=platform.url)
        for uri in (str(file), f"file://{file}"):
            arguments = {"uri": uri}
            run = client.create_run_from_pipeline_func(imports, arguments=arguments)
            assert client.wait_for_run_completion(run.run_id, 120, 1).state == "SUCCEEDED", uri
            assert results(platform, run.run_id) == ["of this machine"]
    finally:
        platform.stop()
