"""The stock kfp command line."""

import json
import pathlib
import subprocess
import sys


def kfp(platform, *arguments):
    tool = pathlib.Path(sys.executable).with_name("kfp")
    done = subprocess.run(
        [tool, "--endpoint", platform.url, "--output", "json", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_create_list_and_run(platform, package):
    said = kfp(platform, "pipeline", "create", "-p", "from-cli", package)
    made = json.loads(said[said.index("{") :])
    assert made["display_name"] == "from-cli"
    assert "from-cli" in kfp(platform, "pipeline", "list")
    ran = kfp(platform, "run", "create", "-e", "cli", "-f", package, "-w", "a=20", "b=22")
    assert "SUCCEEDED" in ran
    assert "cli" in kfp(platform, "experiment", "list")
    assert "SUCCEEDED" in kfp(platform, "run", "list")
