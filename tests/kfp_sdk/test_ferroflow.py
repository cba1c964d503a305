"""The command line of ours, `ferroflow`, as people use it beside the SDK."""

import fcntl
import json
import os
import pathlib
import pty
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
import venv

import kfp
import pytest
from conftest import Platform, binary
from kfp import dsl
from kfp.dsl import HTML, Dataset, Metrics, Output

TWO = """
from kfp import dsl

@dsl.container_component
def say():
    return dsl.ContainerSpec(image="busybox", command=["echo", "hello"])

@dsl.pipeline(name="from-python")
def first():
    say()

{second}
"""

SECOND = """
@dsl.pipeline
def second():
    say()
"""


@dsl.component
def report(rows: int, metrics: Output[Metrics], page: Output[HTML], data: Output[Dataset]) -> str:
    print("making a report")
    metrics.log_metric("accuracy", 0.75)
    with open(page.path, "w") as file:
        file.write("<h1>Report</h1>")
    with open(data.path, "w") as file:
        file.writelines(f"{row}\n" for row in range(rows))
    return "done"


@dsl.component
def fail(after: str):
    raise ValueError("no luck today")


@dsl.pipeline(name="reporting")
def reporting(rows: int = 3) -> str:
    return report(rows=rows).outputs["Output"]


@dsl.pipeline(name="failing")
def failing(rows: int = 3):
    made = report(rows=rows)
    fail(after=made.outputs["Output"])


@dsl.container_component
def shell(script: str):
    return dsl.ContainerSpec(image="busybox", command=["sh", "-c"], args=[script])


@dsl.pipeline(name="talking")
def talking(first: str = "echo one; echo two", second: str = "echo three"):
    begun = shell(script=first).set_caching_options(False).set_display_name("begin")
    shell(script=second).after(begun).set_caching_options(False)


def compiled(folder, pipeline):
    path = folder / f"{pipeline.name}-file.yaml"
    kfp.compiler.Compiler().compile(pipeline, str(path))
    return str(path)


class Client:
    """Runs `ferroflow` against a platform."""

    def __init__(self, url):
        self.url = url
        self.env = {"FERROFLOW_ENDPOINT": url, "TZ": "Asia/Tokyo"}

    def start(self, *arguments, env=(), **more):
        env = {**os.environ, **self.env, **dict(env)}
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        return subprocess.Popen([binary(), *map(str, arguments)], env=env, **more)

    def run(self, *arguments, env=()):
        process = self.start(*arguments, env=env)
        out, error = process.communicate(timeout=120)
        return process.returncode, out, error

    def __call__(self, *arguments, env=()):
        code, out, error = self.run(*arguments, env=env)
        assert code == 0, out + error
        return out

    def refused(self, *arguments, env=()):
        code, out, error = self.run(*arguments, env=env)
        assert code == 1, out + error
        return error

    def json(self, *arguments):
        return json.loads(self(*arguments, "-o", "json"))


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    """A platform of its own: lists and @last are about these runs only."""
    started = Platform(tmp_path_factory.mktemp("ferroflow")).start()
    yield started
    started.stop()


@pytest.fixture
def ferroflow(platform):
    return Client(platform.url)


@pytest.fixture(scope="module")
def reported(platform, tmp_path_factory):
    """A run that has metrics, artifacts and an output."""
    client = Client(platform.url)
    file = compiled(tmp_path_factory.mktemp("reporting"), reporting)
    run = client.json("run", "submit", file, "--experiment", "reports", "--param", "rows=5")
    assert client("run", "wait", run["run_id"]).strip().endswith("succeeded")
    return run["run_id"]


@pytest.fixture(scope="module")
def failed(platform, tmp_path_factory):
    client = Client(platform.url)
    file = compiled(tmp_path_factory.mktemp("failing"), failing)
    run = client("run", "submit", file, "--param", "rows=1").strip()
    code, _, error = client.run("run", "wait", run)
    assert code == 1 and "no luck today" in error
    return run


def test_a_run_is_found_by_id_prefix_name_and_last(ferroflow, reported):
    name = f"only-{time.time()}"
    file = compiled(pathlib.Path(os.environ["HOME"]), talking)
    made = ferroflow.json("run", "submit", file, "--name", name)["run_id"]
    for reference in (made, made[:13], made.upper()[:13], name, "@last"):
        assert made in ferroflow("run", "get", reference), reference
    assert made not in ferroflow("run", "get", reported[:13])
    ferroflow("run", "wait", made)
    assert "no run has the name or the id zzz" in ferroflow.refused("run", "get", "zzz")
    assert "@first is not known: @last" in ferroflow.refused("run", "get", "@first")


def test_what_fits_several_is_told(ferroflow):
    made = [ferroflow.json("experiment", "create", f"many-{at}")["experiment_id"] for at in range(17)]
    first = [one[0] for one in made]
    shared = next(digit for digit in first if first.count(digit) > 1)
    said = ferroflow.refused("experiment", "get", shared)
    assert re.search(rf"{shared} begins the ids of \S+( than 8)? experiments: give more", said), said
    assert all(one in said for one in made[-8:] if one[0] == shared), said


def test_a_python_file_with_one_pipeline_is_compiled_and_named_after_it(ferroflow, tmp_path):
    file = tmp_path / "anything.py"
    file.write_text(TWO.format(second=""))
    run = ferroflow.json("run", "submit", file, "--python", sys.executable)
    assert run["display_name"] == "from-python"
    assert ferroflow("run", "wait", run["run_id"]).strip().endswith("succeeded")


@pytest.mark.parametrize("text, said", [
    (TWO.format(second=SECOND), "it has 2 pipelines (first, second): say which one with --function"),
    ("x = 1\n", "it has no pipeline: decorate one function with @kfp.dsl.pipeline"),
    ("import nothing_like_it\n", "No module named 'nothing_like_it'"),
])
def test_other_python_files_are_refused_with_the_reason(ferroflow, tmp_path, text, said):
    file = tmp_path / "some.py"
    file.write_text(text)
    error = ferroflow.refused("run", "submit", file, "--python", sys.executable)
    assert said in error and "some.py" in error, error


def test_one_of_several_pipelines_is_chosen(ferroflow, tmp_path):
    file = tmp_path / "some.py"
    file.write_text(TWO.format(second=SECOND))
    python = ("--python", sys.executable)
    run = ferroflow.json("run", "submit", file, "--function", "second", *python)
    assert run["display_name"] == "second"
    error = ferroflow.refused("run", "submit", file, "--function", "third", *python)
    assert "no pipeline function third (--function); its pipelines: first, second" in error


def test_a_python_without_the_sdk_is_told(ferroflow, tmp_path):
    file = tmp_path / "some.py"
    file.write_text(TWO.format(second=""))
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare/bin/python"
    error = ferroflow.refused("run", "submit", file, "--python", python)
    assert "needs a Python with the kfp SDK 2" in error and f"`{python} -m pip install kfp`" in error
    error = ferroflow.refused("run", "submit", file, "--python", tmp_path / "none")
    assert "cannot be started" in error and "--python" in error


def test_an_argo_workflow_is_told(ferroflow, tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}\n")
    for command in (("run", "submit"), ("pipeline", "upload")):
        error = ferroflow.refused(*command, file)
        assert "an Argo Workflow" in error and "compile with kfp 2" in error, error


def test_pipelines_are_uploaded_versioned_and_run_by_name(ferroflow, tmp_path):
    file = compiled(tmp_path, talking)
    made = ferroflow.json("pipeline", "upload", file)
    assert made["name"] == "talking"
    assert "already exists" in ferroflow.refused("pipeline", "upload", file)
    version = ferroflow.json("pipeline", "upload-version", "talking", file, "--name", "v2")
    assert version["pipeline_id"] == made["pipeline_id"]
    run = ferroflow.json("run", "submit", "--pipeline", "talking", "--version", "v2",
                         "--param", "second=echo 5")
    reference = run["pipeline_version_reference"]
    assert reference["pipeline_version_id"] == version["pipeline_version_id"]
    assert (run["display_name"], run["runtime_config"]["parameters"]) == ("talking", {"second": "echo 5"})
    newest = ferroflow.json("run", "submit", "--pipeline", made["pipeline_id"][:12])
    assert newest["pipeline_version_reference"] == reference
    said = ferroflow.refused("run", "submit", "--pipeline", "talking", "--version", "v9")
    assert "no version has the name or the id v9" in said
    for one in (run, newest):
        ferroflow("run", "wait", one["run_id"])
    listed = ferroflow.json("run", "list", "--pipeline", "talking", "--limit", "200")["runs"]
    assert {run["run_id"], newest["run_id"]} <= {one["run_id"] for one in listed}


def test_lists_are_filtered_and_paged(ferroflow, reported, failed):
    ids = lambda *flags: [run["run_id"] for run in ferroflow.json("run", "list", *flags).get("runs", [])]
    assert failed in ids("--state", "failed") and reported not in ids("--state", "failed")
    assert ids("--experiment", "reports") == [reported]
    assert ids("--pipeline", "reporting") == [reported]
    everything = ids("--limit", "200")
    assert ids("--limit", "2", "--page", "2") == everything[2:4]
    assert "--page 99" in ferroflow.refused("run", "list", "--page", "99")
    assert "no pipeline has the name" in ferroflow.refused("run", "list", "--pipeline", "zzz")


def test_a_run_is_put_away_and_brought_back(ferroflow, failed):
    ids = lambda *flags: [run["run_id"] for run in ferroflow.json("run", "list", *flags).get("runs", [])]
    ferroflow("run", "archive", failed)
    assert failed not in ids("--limit", "200") and failed in ids("--archived")
    ferroflow("run", "unarchive", failed)
    assert failed in ids("--limit", "200") and failed not in ids("--archived")


def test_get_shows_parameters_metrics_outputs_and_artifacts(ferroflow, reported):
    said = ferroflow("run", "get", reported)
    for wanted in (r"Experiment +reports", r"State +succeeded", r"rows +5", r"report +accuracy +0.75",
                   r"Output +done", r"page +HTML", r"\+09:00"):
        assert re.search(wanted, said), (wanted, said)
    whole = ferroflow.json("run", "get", reported)
    assert whole["tasks"][1]["name"] == "report" and len(whole["artifacts"]) == 3


def test_get_shows_the_cause_and_tasks_in_their_order(ferroflow, failed):
    said = ferroflow("run", "get", failed)
    assert re.search(r"Cause .*fail", said), said
    assert "no luck today" in said, said
    assert said.index("\nreport ") < said.index("\nfail "), said


def test_artifacts_are_listed_shown_downloaded_and_opened(ferroflow, reported, tmp_path):
    listed = ferroflow.json("artifact", "list", "--run", reported)["artifacts"]
    numbers = {one["name"]: one["artifact_id"] for one in listed}
    assert set(numbers) == {"metrics", "page", "data"}
    place = f"{reported}/report/data"
    assert re.search(r"Type +system.Dataset", ferroflow("artifact", "get", numbers["data"]))
    ferroflow("artifact", "download", place, "--to", tmp_path / "rows.txt")
    assert (tmp_path / "rows.txt").read_text() == "0\n1\n2\n3\n4\n"
    assert "--force" in ferroflow.refused("artifact", "download", place, "--to", tmp_path / "rows.txt")
    assert ferroflow("artifact", "download", place, "--to", "-") == "0\n1\n2\n3\n4\n"
    metrics = ferroflow("artifact", "download", numbers["metrics"], "--to", "-")
    assert json.loads(metrics) == {"accuracy": 0.75}
    said = ferroflow.refused("artifact", "get", f"{reported}/report/nothing")
    assert "only data, metrics, page" in said
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho $1 > {tmp_path}/opened\n")
    browser.chmod(0o755)
    ferroflow("artifact", "open", f"{reported}/report/page", env={"BROWSER": browser})
    deadline = time.monotonic() + 10
    while not (tmp_path / "opened").exists() or not (tmp_path / "opened").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    opened = (tmp_path / "opened").read_text().strip()
    assert opened == f"{ferroflow.url}/apis/ferroflow/v1/artifacts/{numbers['page']}/content"


def test_an_artifact_that_is_a_folder_is_downloaded_whole(ferroflow, tmp_path):
    @dsl.container_component
    def folder(made: Output[Dataset]):
        script = 'mkdir -p "$0/in" && echo a > "$0/a" && echo b > "$0/in/b"'
        return dsl.ContainerSpec(image="busybox", command=["sh", "-c", script], args=[made.path])

    @dsl.pipeline(name="folders")
    def folders():
        folder()

    ferroflow("run", "submit", compiled(tmp_path, folders), "--wait")
    ferroflow("artifact", "download", "@last/folder/made", "--to", tmp_path / "all")
    assert (tmp_path / "all/a").read_text() == "a\n" and (tmp_path / "all/in/b").read_text() == "b\n"
    ferroflow("artifact", "download", "@last/folder/made", "--path", "in/b", "--to", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "b\n"
    assert "in/b" in ferroflow("artifact", "get", "@last/folder/made")


def test_logs_leave_the_bootstrap_out_unless_asked(ferroflow, reported):
    assert ferroflow("run", "logs", reported, "report") == "making a report\n"
    raw = ferroflow("run", "logs", reported, "report", "--raw")
    assert "Got executor_input" in raw and "making a report" in raw


def test_logs_follow_every_task_to_the_end_of_the_run(ferroflow, tmp_path):
    gate = tmp_path / "gate"
    waiting = f"echo one; while ! [ -e {gate} ]; do sleep 0.05; done; echo two"
    file = compiled(tmp_path, talking)
    run = ferroflow("run", "submit", file, "-p", f"first={waiting}").strip()
    following = ferroflow.start("run", "logs", run, "--follow")
    assert following.stdout.readline() == "[shell] one\n"
    gate.touch()
    out, error = following.communicate(timeout=60)
    # Each task's log is followed for itself: lines of two tasks may change places.
    assert sorted(out.splitlines()) == ["[shell-2] three", "[shell] two"], out
    assert error.strip().endswith("succeeded"), error
    assert following.returncode == 0
    assert ferroflow("run", "logs", run) == "[shell] one\n[shell] two\n[shell-2] three\n"
    assert ferroflow("run", "logs", run, "--tail", "1") == "[shell] two\n[shell-2] three\n"
    assert ferroflow("run", "logs", run, "shell-2") == "three\n"
    assert "no task nobody" in ferroflow.refused("run", "logs", run, "nobody")


def test_logs_of_an_attempt(ferroflow, tmp_path):
    @dsl.pipeline(name="retrying")
    def retrying(script: str):
        shell(script=script).set_retry(num_retries=1, backoff_duration="0s")

    mark = tmp_path / "mark"
    script = f"if [ -e {mark} ]; then echo second; else touch {mark}; echo first; exit 1; fi"
    run = ferroflow("run", "submit", compiled(tmp_path, retrying), "-p", f"script={script}").strip()
    ferroflow("run", "wait", run)
    assert ferroflow("run", "logs", run, "shell") == "second\n"
    assert ferroflow("run", "logs", run, "shell", "--attempt", "1") == "first\n"
    assert "has had an attempt 7" in ferroflow.refused("run", "logs", run, "--attempt", "7")


def terminal(ferroflow, *arguments, env=(), columns=80):
    """What a command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    env = {"TERM": "xterm", **dict(env)}
    process = ferroflow.start(*arguments, env=env, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    process.wait()
    os.close(ours)
    return said.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("command", [
    ("run", "list"), ("experiment", "list"), ("pipeline", "list"), ("artifact", "list"),
])
def test_tables_fit_a_terminal_of_80_columns(ferroflow, reported, command):
    long = f"{time.time()}-a-name-that-is-longer-than-any-sensible-one-{'x' * 60}"
    ferroflow("experiment", "create", long)
    file = compiled(pathlib.Path(os.environ["HOME"]), talking)
    run = ferroflow("run", "submit", file, "--name", long).strip()
    ferroflow("run", "wait", run)
    for line in COLOUR.sub("", terminal(ferroflow, *command)).splitlines():
        assert len(line) <= 80, line
    for line in COLOUR.sub("", terminal(ferroflow, "run", "get", reported)).splitlines():
        assert len(line) <= 80 or "making" in line or "ferroflow" in line, line


def test_colours_are_for_terminals_that_want_them(ferroflow, reported):
    assert COLOUR.search(terminal(ferroflow, "run", "list"))
    assert not COLOUR.search(terminal(ferroflow, "run", "list", env={"NO_COLOR": "1"}))
    assert not COLOUR.search(ferroflow("run", "list"))


def test_times_are_local(ferroflow, reported):
    hour = lambda zone: re.search(
        r"Created +\S+ (\d+):", ferroflow("run", "get", reported, env={"TZ": zone}))[1]
    assert (int(hour("Asia/Tokyo")) - int(hour("UTC"))) % 24 == 9


def test_a_closed_pipe_ends_quietly(ferroflow, reported):
    for command in (("run", "list"), ("run", "get", reported), ("run", "logs", reported, "--raw"),
                    ("run", "list", "-o", "json"), ("completions", "bash")):
        process = ferroflow.start(*command)
        process.stdout.close()
        error = process.stderr.read()
        assert (process.wait(timeout=60), error) == (0, ""), command


@pytest.mark.parametrize("command", [("run", "wait"), ("run", "logs", "--follow")])
def test_ctrl_c_leaves_the_run_and_says_how_to_come_back(ferroflow, tmp_path, command):
    gate = tmp_path / "gate"
    file = compiled(tmp_path, talking)
    waiting = f"echo one; while ! [ -e {gate} ]; do sleep 0.05; done"
    run = ferroflow("run", "submit", file, "-p", f"first={waiting}").strip()
    process = ferroflow.start(*command, run)
    # Both say something once they watch.
    assert (process.stdout if "logs" in command else process.stderr).readline()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"run {run} goes on" in error and f"ferroflow run wait {run}" in error, error
    assert ferroflow.json("run", "get", run)["state"] == "RUNNING"
    gate.touch()
    assert ferroflow("run", "wait", run).strip().endswith("succeeded")


def test_a_retry_can_be_waited_for(ferroflow, tmp_path):
    @dsl.pipeline(name="mended")
    def mended(script: str):
        shell(script=script).set_caching_options(False)

    mark = tmp_path / "mark"
    file = compiled(tmp_path, mended)
    run = ferroflow("run", "submit", file, "-p", f"script=test -e {mark} && sleep 1").strip()
    assert ferroflow.run("run", "wait", run)[0] == 1
    mark.touch()
    code, out, error = ferroflow.run("run", "retry", run, "--wait")
    assert code == 0 and out.strip().endswith("succeeded"), out
    # What came before the retry is past.
    assert "failed" not in error and "succeeded  shell" in error, error


def test_the_client_has_a_file_of_its_own(platform, tmp_path):
    client = Client(platform.url)
    client.env = {}
    file = tmp_path / "ferroflow/client.toml"
    file.parent.mkdir()
    file.write_text(f'endpoint = "{platform.url}/"\n')
    assert client("run", "list", env={"XDG_CONFIG_HOME": tmp_path})
    file.write_text("endpoints = 1\n")
    said = client.refused("run", "list", env={"XDG_CONFIG_HOME": tmp_path})
    assert "unknown field `endpoints`" in said and "client.toml" in said
    said = client.refused("run", "list", "--endpoint", "ftp://x")
    assert "begins with http:// or https://" in said
    said = client.refused("run", "list", "--endpoint", "http://127.0.0.1:1")
    assert "nobody answers at http://127.0.0.1:1" in said


def tls_in_front(url, folder):
    """Ends TLS before the platform; the address."""
    for name in ("authority", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", "-subj", f"/CN={name}",
             "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE",
             "-days", "2"],
            check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "authority.pem", folder / "authority.key")
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = url.removeprefix("http://").split(":")

    def pump(source, sink):
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
        except OSError:
            pass
        finally:
            sink.close()

    def serve():
        while True:
            try:
                plain, _ = listener.accept()
                secure = context.wrap_socket(plain, server_side=True)
            except OSError:
                continue
            behind = socket.create_connection((host, int(port)))
            for pair in ((secure, behind), (behind, secure)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return f"https://localhost:{listener.getsockname()[1]}"


def test_https_endpoints_speak_tls_and_keep_their_path(ferroflow, reported, tmp_path):
    address = tls_in_front(ferroflow.url, tmp_path)
    trusted = ("--ca-file", tmp_path / "authority.pem")
    assert reported[:8] in ferroflow("run", "list", "--endpoint", address, *trusted)
    by_variable = {"FERROFLOW_ENDPOINT": address, "FERROFLOW_CA_FILE": tmp_path / "authority.pem"}
    assert reported[:8] in ferroflow("run", "list", env=by_variable)
    for other in ((), ("--ca-file", tmp_path / "other.pem")):
        said = ferroflow.refused("run", "list", "--endpoint", address, *other)
        assert "certificate" in said and "--ca-file" in said, said
    # The gateway itself has no such path, and says which one it was asked for.
    said = ferroflow.refused("run", "list", "--endpoint", f"{address}/ml/", *trusted)
    assert "/ml/kubeflow.pipelines.backend.api.v2beta1.RunService/ListRuns" in said, said


def test_every_shell_has_completions(ferroflow):
    for shell in ("bash", "zsh", "fish", "powershell", "elvish"):
        script = ferroflow("completions", shell)
        assert "upload-version" in script and "unarchive" in script
