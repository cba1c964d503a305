"""A platform of its own for each test session; the stock kfp SDK against it."""

import os
import pathlib
import subprocess
import time

import kfp
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary():
    given = os.environ.get("FERROFLOW_BIN")
    found = [given] if given else [ROOT / "target" / kind / "ferroflow" for kind in ("quick", "debug")]
    for path in found:
        if pathlib.Path(path).exists():
            return str(path)
    pytest.exit("build it first: cargo build -p ferroflow", returncode=2)


class Platform:
    """A platform that can be stopped and started again over the same data."""

    def __init__(self, data_dir):
        self.data_dir = data_dir
        self.process = None
        self.url = None

    def start(self):
        port_file = self.data_dir / "port"
        port_file.unlink(missing_ok=True)
        with open(self.data_dir / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                [binary(), "up", "--data-dir", self.data_dir, "--listen", "127.0.0.1:0",
                 "--port-file", port_file],
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


@pytest.fixture(scope="session", autouse=True)
def private_home(tmp_path_factory):
    """The SDK keeps a context file; the user's own is not for tests."""
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
    os.environ.pop("KF_PIPELINES_ENDPOINT", None)


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    started = Platform(tmp_path_factory.mktemp("platform")).start()
    yield started
    started.stop()


@pytest.fixture
def client(platform):
    return kfp.Client(host=platform.url)


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """A compiled pipeline on disk."""
    from pipelines import addition

    path = tmp_path_factory.mktemp("package") / "addition.yaml"
    kfp.compiler.Compiler().compile(addition, str(path))
    return str(path)
