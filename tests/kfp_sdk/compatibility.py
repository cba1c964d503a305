"""What of Kubeflow Pipelines' clients was tried, and what came of it: docs/compatibility.md.

A test says with `@covers(name, tried)` what it exercises. What there is to exercise is asked of the
clients themselves, so nothing can be forgotten, and a test that does not do what it says fails.
"""

import functools
import inspect
import os
import pathlib
import re
import sys

import click
import kfp
import kfp_server_api
import pytest
from kfp.cli.cli import COMMANDS, cli

TESTS = pathlib.Path(__file__).resolve().parent
PAGE = TESTS.parents[1] / "docs/compatibility.md"

# Set to 1, the page is written; else it is compared.
BLESS = "FERROFLOW_BLESS"


def covers(name, tried, result="works"):
    """Says that a test exercises `name`, in what way, and what comes of it."""
    return pytest.mark.covers(name, tried, result)


def client_methods():
    members = inspect.getmembers(kfp.Client, callable)
    return sorted(f"Client.{name}" for name, _ in members if not name.startswith("_"))


def _walk(command, path):
    if not isinstance(command, click.Group):
        return {path: command}
    context = click.Context(command)
    found = {}
    for name in command.list_commands(context):
        found |= _walk(command.get_command(context, name), f"{path} {name}")
    for alias, name in (getattr(command, "deprecated_map", None) or {}).items():
        found[f"{path} {alias}"] = command.get_command(context, name)
    return found


def cli_commands():
    """Those that talk to a server, and those that do not."""
    local = {command.name for command in COMMANDS["no_client"]}
    served, others = [], []
    for path in sorted(_walk(cli, "kfp")):
        (others if path.split()[1] in local else served).append(path)
    return served, others


def cli_path(arguments):
    """The subcommand that arguments name, as `kfp run create`."""
    path = "kfp"
    known = _walk(cli, "kfp")
    for argument in arguments:
        if f"{path} {argument}" in known:
            return f"{path} {argument}"
        if any(one.startswith(f"{path} {argument} ") for one in known):
            path = f"{path} {argument}"
    return path


def generated_operations():
    """Operations of the generated client that kfp.Client has no method for."""
    used = set(re.findall(r"_api\.(\w+)", inspect.getsource(sys.modules[kfp.Client.__module__])))
    found = []
    for api_name, api in inspect.getmembers(kfp_server_api, inspect.isclass):
        if not api_name.endswith("Api"):
            continue
        for name, _ in inspect.getmembers(api, callable):
            hidden = name.startswith("_") or name.endswith("_with_http_info")
            if not hidden and name not in used:
                found.append(f"{api_name}.{name}")
    return sorted(found)


def required():
    return client_methods() + cli_commands()[0] + generated_operations()


class Observed:
    """What tests themselves, and not the SDK in their stead, asked of the clients."""

    def __init__(self):
        self.names = set()

    def note(self, name):
        self.names.add(name)

    def watching(self, kind, label):
        """The same class, whose public attributes are noted when a test asks for them."""
        note = self.note

        class Watched(kind):
            def __getattribute__(self, name):
                if not name.startswith("_"):
                    asking = pathlib.Path(sys._getframe(1).f_code.co_filename)
                    if asking.parent == TESTS:
                        note(f"{label}.{name}")
                return super().__getattribute__(name)

        Watched.__name__ = kind.__name__
        return Watched


class Plugin:
    """Gathers what is covered, and writes or compares the page."""

    def __init__(self):
        self.rows = {}
        self.failed = False

    def pytest_configure(self, config):
        config.addinivalue_line("markers", "covers(name, tried, result): what a test exercises")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        self.failed |= report.failed
        if report.failed or report.skipped:
            item.unfinished = True
        for mark in item.iter_markers("covers"):
            name, tried, result = mark.args
            if report.failed:
                result = "fails"
            elif report.skipped:
                result = str(call.excinfo.value.msg)
            elif report.when != "call":
                continue
            self.rows.setdefault(name, []).append((item.nodeid, tried, result))

    def pytest_sessionfinish(self, session):
        if self.failed or set(required()) - set(self.rows):
            return
        page = render(self.rows)
        if os.environ.get(BLESS) == "1":
            PAGE.write_text(page)
        elif not PAGE.exists() or PAGE.read_text() != page:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print(f"\n{PAGE.name} is not what was tried: {BLESS}=1 with the same command writes it")


def _cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def _row(rows, name):
    ordered = sorted(rows[name], key=lambda row: row[0])
    unique = lambda texts: list(dict.fromkeys(texts))
    tried = "; ".join(unique(row[1] for row in ordered))
    results = unique(row[2] for row in ordered)
    others = [result for result in results if result != "works"]
    return f"| `{name}` | {_cell(tried)} | {_cell('; '.join(others) or 'works')} |"


def _table(title, rows, names):
    lines = ["", f"## {title}", "", "| what | tried | result |", "|---|---|---|"]
    return lines + [_row(rows, name) for name in names]


def render(rows):
    served, local = cli_commands()
    lines = [
        "# Compatibility with the clients of Kubeflow Pipelines",
        "",
        "<!-- Written by tests/kfp_sdk, which CI runs and compares: "
        f"`{BLESS}=1 cargo xtask test`. -->",
        "",
        f"What the stock SDK and command line (kfp {kfp.__version__}) can ask of a server, tried",
        "against a running platform by `tests/kfp_sdk`. The lists are those of the clients",
        "themselves: a method or command that is not tried fails the tests.",
    ]
    lines += _table("kfp.Client", rows, client_methods())
    lines += _table("The command line", rows, served)
    lines += ["", "These talk to no server: " + ", ".join(f"`{name}`" for name in local) + "."]
    lines += _table("The generated client", rows, generated_operations())
    lines += ["", "Operations of `kfp_server_api` that `kfp.Client` has no method for."]
    return "\n".join(lines) + "\n"
