"""What a first day with the command line comes across: narrow terminals, slips, other servers."""

import http.server
import re
import sys
import threading

import pytest
from conftest import Platform
from kfp import dsl
from kfp.dsl import Dataset, Output
from test_ferroflow import COLOUR, Client, compiled, talking, terminal


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    started = Platform(tmp_path_factory.mktemp("first-day")).start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def ferroflow(platform):
    return Client(platform.url)


@pytest.fixture(scope="module")
def talked(ferroflow, tmp_path_factory):
    """A run with a default and a parameter that was given; its file."""
    file = compiled(tmp_path_factory.mktemp("talking"), talking)
    run = ferroflow("run", "submit", file, "-p", "second=printf no-end").strip()
    ferroflow("run", "wait", run)
    return run, file


def test_tables_keep_names_on_narrow_terminals(ferroflow, talked):
    _, file = talked
    ferroflow("recurring-run", "create", file, "--cron", "0 9 * * mon-fri",
              "--time-zone", "Europe/Berlin", "--name", "weekday")
    said = COLOUR.sub("", terminal(ferroflow, "recurring-run", "list", columns=80))
    assert "weekday " in said and "Europe/Berlin" in said
    assert all(len(line) <= 80 for line in said.splitlines()), said
    said = COLOUR.sub("", terminal(ferroflow, "run", "list", columns=40))
    assert "talking " in said and "CREATED" in said.splitlines()[-1], said
    # A terminal that does not know its size is none.
    assert "weekday " in terminal(ferroflow, "recurring-run", "list", columns=0)


def test_get_shows_defaults_and_times_of_a_run_are_not_made_up(ferroflow, talked):
    run, _ = talked
    said = ferroflow("run", "get", run)
    assert "echo one; echo two" in said and "printf no-end" in said
    assert re.search(r"Took +\d+\.\ds\n", said), said
    listed = ferroflow("run", "list").splitlines()[1]
    assert not re.search(r"\d\.\ds$", listed), listed


def test_a_disabled_schedule_has_no_next_times(ferroflow, talked):
    _, file = talked
    made = ferroflow.start("recurring-run", "create", file, "--every", "1d", "--disabled",
                           "--name", "idle")
    _, told = made.communicate(timeout=60)
    for said in (told, ferroflow("recurring-run", "get", "idle")):
        assert "disabled" in said and "due next" not in said, said


@pytest.mark.parametrize("arguments,said", [
    (("--cron", "CRON_TZ=Europe/Berlin 0 9 * * *", "--time-zone", "Asia/Tokyo"), "given twice"),
    (("--every", "1h", "--time-zone", "Asia/Tokyo"), "--time-zone is for --cron"),
    (("--every", "often"), "--every often: write"),
    (("--every", "1h", "--start", "soon"), "--start soon: write"),
])
def test_slips_in_schedules_are_told_by_their_flag(ferroflow, talked, arguments, said):
    assert said in ferroflow.refused("recurring-run", "create", talked[1], *arguments)


def test_another_server_is_told(ferroflow, tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}"
        said = ferroflow.refused("run", "list", "--endpoint", f"http://{place}")
        # The server may close the connection before its answer was read.
        assert f"http://{place} " in said and "is not a Ferroflow gRPC endpoint" in said
        said = ferroflow.refused("run", "list", "--endpoint", f"https://{place}")
        assert f"does not speak TLS: try http://{place}" in said
        server.shutdown()


def test_a_folder_is_opened_by_a_file_and_a_browser_that_fails_is_told(ferroflow, tmp_path):
    @dsl.container_component
    def folder(made: Output[Dataset]):
        script = 'mkdir -p "$0/in" && echo a > "$0/a" && echo b > "$0/in/b"'
        return dsl.ContainerSpec(image="busybox", command=["sh", "-c", script], args=[made.path])

    @dsl.pipeline(name="folders")
    def folders():
        folder()

    ferroflow("run", "submit", compiled(tmp_path, folders), "--wait")
    place = "@last/folder/made"
    said = ferroflow.refused("artifact", "open", place)
    assert "--path" in said and "in/b" in said
    address = ferroflow("artifact", "open", place, "--path", "in/b", "--print")
    assert address.strip().endswith("/content?path=in/b")
    said = ferroflow.refused("artifact", "open", place, "--path", "in/b",
                             env={"BROWSER": "/nowhere/browser"})
    assert "/nowhere/browser: " in said and "/content?path=in/b" in said


def test_what_is_missing_is_told_without_what_was_given(ferroflow):
    said = ferroflow.refused("run", "submit")
    assert "FILE" in said and "--pipeline" in said
    code, _, error = ferroflow.run("run", "submit", "--nothing")
    assert code == 2 and "<URL>" not in error and "[OPTIONS] <FILE>" in error


def test_a_python_file_that_exits_is_told(ferroflow, tmp_path):
    file = tmp_path / "exits.py"
    file.write_text("import sys\nsys.exit(0)\n")
    assert "sys.exit(0)" in ferroflow.refused("run", "submit", file, "--python",
                                            sys.executable)


def test_an_experiment_that_was_put_away_says_so(ferroflow):
    ferroflow("experiment", "create", "old")
    assert "archived" not in ferroflow("experiment", "get", "old")
    ferroflow("experiment", "archive", "old")
    assert "archived" in ferroflow("experiment", "get", "old")


def test_what_is_under_way_is_deleted_by_force_only(ferroflow, talked):
    run = ferroflow("run", "submit", talked[1], "-p", "first=sleep 60").strip()
    said = ferroflow.refused("run", "delete", run)
    assert "--force" in said and "cancel" in said
    assert "deleted" in ferroflow("run", "delete", run, "--force")


def test_a_pipeline_with_versions_names_the_flag(ferroflow, talked):
    ferroflow("pipeline", "upload", talked[1], "--name", "kept")
    said = ferroflow.refused("pipeline", "delete", "kept")
    assert "--cascade" in said and "cascade=true" not in said
    ferroflow("pipeline", "delete", "kept", "--cascade")


def test_control_sequences_reach_no_terminal(ferroflow, talked):
    script = r"printf '\033]0;title\007\033[31mred\033[0m\n'"
    run = ferroflow("run", "submit", talked[1], "-p", f"first={script}").strip()
    ferroflow("run", "wait", run)
    said = terminal(ferroflow, "run", "logs", run)
    assert "\x1b]0;" not in said and "\x1b[31mred" in said
    assert "\x1b]0;title" in ferroflow("run", "logs", run)


def test_a_last_line_without_an_end_is_shown_alone(ferroflow, tmp_path):
    @dsl.component
    def quiet():
        import sys
        sys.stderr.write("no newline at end")

    @dsl.pipeline(name="no-end")
    def no_end():
        quiet()

    ferroflow("run", "submit", compiled(tmp_path, no_end), "--wait")
    assert ferroflow("run", "logs", "@last", "quiet") == "no newline at end\n"


def test_a_python_that_is_not_there_is_told_at_the_start(tmp_path):
    with pytest.raises(AssertionError):
        Platform(tmp_path, "--python", "/nope").start()
    assert "/nope" in (tmp_path / "server.log").read_text()
