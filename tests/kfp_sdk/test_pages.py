"""What a browser gets: results that open, and the plain pages that the SDK's links lead to."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import kfp
import pytest
from conftest import Platform, binary
from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Markdown, Metrics, Model, Output


@dsl.component
def results(
    page: Output[HTML],
    text: Output[Markdown],
    values: Output[Metrics],
    curve: Output[ClassificationMetrics],
    plot: Output[Artifact],
    rows: Output[Artifact],
    model: Output[Model],
):
    import base64

    print("working")
    values.log_metric("accuracy", 0.5)
    curve.log_confusion_matrix(["a", "b"], [[1, 2], [3, 4]])
    contents = {
        page.path: b"<script>document.title = 'ran'</script><p>report</p>",
        text.path: b"# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<script>1</script>\n",
        plot.path: base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
        ),
        rows.path: "a,b\n1,ä\n".encode(),
        model.path: bytes(range(256)),
    }
    for path, content in contents.items():
        with open(path, "wb") as file:
            file.write(content)


@dsl.pipeline(name="results")
def pipeline():
    results()


class Answer:
    def __init__(self, url, headers=None):
        try:
            response = urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}))
        except urllib.error.HTTPError as error:
            response = error
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


@pytest.fixture(scope="module")
def run(platform):
    """A run, and what the SDK printed about it."""
    client = kfp.Client(host=platform.url)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        made = client.create_run_from_pipeline_func(pipeline, experiment_name="pages")
    client.wait_for_run_completion(made.run_id, timeout=120)
    return made.run_id, printed.getvalue()


@pytest.fixture
def content(platform, run):
    """Reads an artifact's content by the artifact's name."""
    root = f"{platform.url}/apis/ferroflow/v1"
    listed = Answer(f"{root}/artifacts?run_id={run[0]}").json["artifacts"]
    numbers = {one["name"]: one["artifact_id"] for one in listed}
    return lambda name, **headers: Answer(f"{root}/artifacts/{numbers[name]}/content", headers)


def test_reports_open_without_an_origin(content):
    page = content("page")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-disposition"].startswith("inline")
    assert page.headers["x-content-type-options"] == "nosniff"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts") and "allow-same-origin" not in policy
    assert b"report" in page.body


def test_markdown_is_a_page_for_browsers_and_itself_for_programs(content):
    page = content("text", accept="text/html,*/*")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<h1>Title</h1>" in page.body and b"<td>2</td>" in page.body
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox;") and "script" not in policy
    raw = content("text")
    assert raw.headers["content-type"] == "text/markdown; charset=utf-8"
    assert raw.body.startswith(b"# Title")


def test_images_and_texts_are_shown_and_everything_else_is_saved(content):
    for name, kind in (("plot", "image/png"), ("rows", "text/plain; charset=utf-8")):
        shown = content(name)
        assert shown.headers["content-type"] == kind, name
        assert shown.headers["content-disposition"].startswith(f'inline; filename="{name}"')
        assert shown.headers["content-security-policy"].startswith("sandbox")
    saved = content("model")
    assert saved.headers["content-type"] == "application/octet-stream"
    assert saved.headers["content-disposition"].startswith('attachment; filename="model"')
    assert saved.body == bytes(range(256))


def test_the_content_of_metrics_is_their_values(content):
    assert content("values").json == {"accuracy": 0.5}
    matrix = content("curve").json["confusionMatrix"]
    assert [row["row"] for row in matrix["rows"]] == [[1, 2], [3, 4]]


def test_a_page_of_a_report_cannot_call_the_api(platform):
    """What a script of a sandboxed page sends has the origin `null`."""
    answer = Answer(f"{platform.url}/apis/v2beta1/runs", {"origin": "null"})
    assert answer.status == 403


def test_the_links_of_the_sdk_lead_to_a_page_that_runs_only_our_script(platform, run):
    links = re.findall(r"http://\S+?/#/(?:runs|experiments)/details/[0-9a-f-]{36}", run[1])
    assert len(links) == 2, run[1]
    page = Answer(links[0].split("#")[0])
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    for path in re.findall(r'(?:src|href)="(ui/[^"]+)"', page.body.decode()):
        loaded = Answer(f"{platform.url}/{path}")
        assert loaded.status == 200 and loaded.headers["x-content-type-options"] == "nosniff", path


def test_pages_need_no_key_and_show_nothing_without_one(tmp_path, monkeypatch):
    key = "a-key-for-this-test"
    keys = tmp_path / "keys"
    keys.write_text(f"somebody:{hashlib.sha256(key.encode()).hexdigest()}\n")
    monkeypatch.setenv("FERROFLOW_GATEWAY__API_KEYS_FILE", str(keys))
    (tmp_path / "data").mkdir()
    locked = Platform(tmp_path / "data").start()
    try:
        monkeypatch.delenv("FERROFLOW_GATEWAY__API_KEYS_FILE")
        assert Answer(f"{locked.url}/").status == 200
        assert Answer(f"{locked.url}/ui/app.js").status == 200
        runs = f"{locked.url}/apis/v2beta1/runs"
        assert Answer(runs).status == 401
        assert Answer(runs, {"authorization": f"Bearer {key}"}).status == 200
        arguments = [binary(), "run", "list", "--endpoint", locked.url]
        without = subprocess.run(arguments, capture_output=True, text=True)
        assert without.returncode == 1 and "an API key is needed" in without.stderr
        env = {**os.environ, "FERROFLOW_API_KEY": key}
        subprocess.run(arguments, env=env, check=True)
    finally:
        locked.stop()


def chromium(url, folder):
    """The page as a browser has it after a while."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not here")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={folder}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([browser, *flags, url], capture_output=True, text=True, timeout=120)
    return done.stdout


def test_a_browser_shows_the_run(platform, run, tmp_path):
    shown = chromium(f"{platform.url}/#/runs/details/{run[0]}", tmp_path)
    for wanted in ("results", "succeeded", "accuracy", "0.5", "Markdown", "/content"):
        assert wanted in shown, (wanted, shown)


def test_a_browser_shows_the_beginning_of_a_long_value(platform, tmp_path):
    @dsl.container_component
    def nothing():
        return dsl.ContainerSpec(image="busybox", command=["true"])

    @dsl.pipeline(name="long-value")
    def long_value(text: str, rate: float = 0.25):
        nothing()

    client = kfp.Client(host=platform.url)
    made = client.create_run_from_pipeline_func(long_value, arguments={"text": "x" * 1_100_000})
    client.wait_for_run_completion(made.run_id, timeout=120)
    shown = chromium(f"{platform.url}/#/runs/details/{made.run_id}", tmp_path)
    assert re.search(r"show all 1.?100.?000 characters", shown) and len(shown) < 100_000
    # What it was not given is shown as well.
    assert "0.25" in shown


def test_a_browser_shows_the_experiment(platform, run, tmp_path):
    experiment = re.search(r"experiments/details/([0-9a-f-]{36})", run[1])[1]
    shown = chromium(f"{platform.url}/#/experiments/details/{experiment}", tmp_path)
    assert "pages" in shown and f"#/runs/details/{run[0]}" in shown, shown


@pytest.mark.parametrize(
    ("fragment", "said"),
    [
        ("/%zz", "malformed"),
        ("/runs/details/00000000-0000-4000-8000-000000000000", "not found"),
        ("/runs/details/..%2F..%2Fhealthz", "run_id"),
        ("/nothing/here", "There is no page #/nothing/here"),
    ],
)
def test_a_broken_link_is_told_in_the_page(platform, fragment, said, tmp_path):
    shown = chromium(f"{platform.url}/#{fragment}", tmp_path)
    assert said in shown, shown
