"""A platform of its own for each test session; the stock kfp SDK against it."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import kfp
import kfp.cli.__main__
import kfp_server_api
import pytest
import requests
from compatibility import Observed, Plugin, cli_path

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pytest_configure(config):
    plugin = Plugin()
    config.pluginmanager.register(plugin, "compatibility")
    plugin.pytest_configure(config)


def binary():
    """The program under test. None is searched for: it could be of other sources."""
    given = os.environ.get("FERROFLOW_BIN", "")
    if not pathlib.Path(given).is_file():
        pytest.exit(
            "FERROFLOW_BIN names no program: `cargo xtask test` builds it and gives it, "
            "or FERROFLOW_BIN=/path/to/ferroflow pytest tests/kfp_sdk",
            returncode=2,
        )
    return given


class Platform:
    """A platform that can be stopped and started again over the same data."""

    def __init__(self, data_dir, *arguments):
        self.data_dir = data_dir
        self.arguments = arguments
        self.listen = "127.0.0.1:0"
        self.process = None
        self.url = None

    def start(self):
        port_file = self.data_dir / "port"
        port_file.unlink(missing_ok=True)
        with open(self.data_dir / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [binary(), "up", "--data-dir", self.data_dir, "--listen", self.listen,
                 "--port-file", port_file, *self.arguments],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while not (port_file.exists() and port_file.read_text()):
            assert time.monotonic() < deadline, (self.data_dir / "server.log").read_text()
            time.sleep(0.01)
        self.url = "http://" + port_file.read_text()
        return self

    def stop(self):
        self.process.kill()
        self.process.wait()

    def tasks(self, run_id):
        """The tasks of a run by their paths."""
        url = f"{self.url}/apis/ferroflow/v1/runs/{run_id}/tasks"
        answer = requests.get(url, timeout=60)
        answer.raise_for_status()
        return {task["path"]: task for task in answer.json()["tasks"]}

    def ferroflow(self, *arguments, cwd=None):
        """Runs our own command line; what it printed."""
        done = subprocess.run(
            [binary(), *arguments],
            env=os.environ | {"FERROFLOW_ENDPOINT": self.url},
            capture_output=True,
            text=True,
            cwd=cwd,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session", autouse=True)
def private_home(tmp_path_factory):
    """The SDK keeps a context file; the user's own is not for tests."""
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ.pop("KF_PIPELINES_ENDPOINT", None)


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    folder = tmp_path_factory.mktemp("platform")
    # Packages of these tests are served by this machine.
    started = Platform(folder, "--package-network", "127.0.0.1").start()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def observed():
    return Observed()


@pytest.fixture(autouse=True)
def does_what_it_says(request, observed):
    """A test that says that it covers something has to ask for it."""
    observed.names.clear()
    yield
    if not getattr(request.node, "unfinished", False):
        claimed = {mark.args[0] for mark in request.node.iter_markers("covers")}
        assert claimed <= observed.names, f"not asked for: {claimed - observed.names}"


@pytest.fixture
def client(platform, observed):
    return observed.watching(kfp.Client, "Client")(host=platform.url)


@pytest.fixture
def generated(platform, observed):
    """APIs of the generated client, by name."""
    configuration = kfp_server_api.Configuration(host=platform.url)
    api_client = kfp_server_api.ApiClient(configuration)

    def api(name):
        return observed.watching(getattr(kfp_server_api, name), name)(api_client)

    return api


def forked(arguments, answer):
    """Runs the stock command line in a copy of this process, which has its modules loaded already.

    Starting it anew costs a second for imports, a hundred times.
    """
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as out, \
            tempfile.TemporaryFile("w+") as err:
        given.write(answer or "")
        given.seek(0)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                for number, file in enumerate((given, out, err)):
                    os.dup2(file.fileno(), number)
                sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
                sys.argv = ["kfp", *arguments]
                kfp.cli.__main__.main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read(), err.read()


@pytest.fixture
def command(platform, observed):
    """The stock command line: what it printed, or how it failed."""

    def run(*arguments, answer=None, fails=False, output="json"):
        observed.note(cli_path(arguments))
        whole = ["--endpoint", platform.url, "--output", output, *arguments]
        code, out, err = forked(whole, answer)
        assert (code != 0) == fails, out + err
        return out + err if fails else out

    return run


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """A compiled pipeline on disk."""
    from pipelines import addition

    path = tmp_path_factory.mktemp("package") / "addition.yaml"
    kfp.compiler.Compiler().compile(addition, str(path))
    return str(path)


@pytest.fixture(scope="session")
def quick_package(tmp_path_factory):
    """One whose task is a shell command: it needs no Python environment."""
    from pipelines import script

    path = tmp_path_factory.mktemp("package") / "script.yaml"
    kfp.compiler.Compiler().compile(script, str(path))
    return str(path)
