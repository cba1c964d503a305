"""Operations of the generated client that kfp.Client has no method for."""

import http.server
import threading
import time

import kfp_server_api
import pytest
from compatibility import covers


def unique(name):
    return f"{name}-{time.monotonic_ns()}"


@pytest.fixture
def served(quick_package):
    """The URL of a compiled pipeline."""
    text = open(quick_package, "rb").read()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/script.yaml"
    server.shutdown()


SERVICE = "PipelineServiceApi.pipeline_service_"


@covers(SERVICE + "create_pipeline", "without a version")
@covers(SERVICE + "get_pipeline_by_name", "one that is there")
@covers(SERVICE + "update_pipeline", "display name and tags; tags cleared")
@covers(SERVICE + "create_pipeline_version", "from a URL")
@covers(SERVICE + "update_pipeline_version", "display name and tags")
def test_pipelines(generated, served):
    api = generated("PipelineServiceApi")
    name = unique("generated")
    made = api.pipeline_service_create_pipeline(
        pipeline=kfp_server_api.V2beta1Pipeline(name=name, display_name="shown", tags={"a": "b"})
    )
    assert (made.name, made.display_name, made.tags) == (name, "shown", {"a": "b"})
    found = api.pipeline_service_get_pipeline_by_name(name=name)
    assert found.pipeline_id == made.pipeline_id

    changed = api.pipeline_service_update_pipeline(
        pipeline_pipeline_id=made.pipeline_id,
        pipeline=kfp_server_api.V2beta1Pipeline(display_name="other", tags={"c": "d"}),
    )
    assert (changed.display_name, changed.tags) == ("other", {"c": "d"})
    cleared = api.pipeline_service_update_pipeline(
        pipeline_pipeline_id=made.pipeline_id, pipeline=kfp_server_api.V2beta1Pipeline(tags={})
    )
    assert (cleared.display_name, cleared.tags) == ("other", None)

    version = api.pipeline_service_create_pipeline_version(
        pipeline_id=made.pipeline_id,
        pipeline_version=kfp_server_api.V2beta1PipelineVersion(
            pipeline_id=made.pipeline_id,
            name="v1",
            package_url=kfp_server_api.V2beta1Url(pipeline_url=served),
        ),
    )
    assert version.package_url.pipeline_url == served
    assert version.pipeline_spec["pipelineInfo"]["name"] == "script"
    renamed = api.pipeline_service_update_pipeline_version(
        pipeline_version_pipeline_id=made.pipeline_id,
        pipeline_version_pipeline_version_id=version.pipeline_version_id,
        pipeline_version=kfp_server_api.V2beta1PipelineVersion(
            display_name="first", tags={"e": "f"}
        ),
    )
    assert (renamed.display_name, renamed.tags) == ("first", {"e": "f"})


@covers(SERVICE + "create_pipeline_and_version", "from a URL; one that leads inside (refused)")
def test_a_pipeline_from_a_url(generated, served):
    api = generated("PipelineServiceApi")

    def create(name, url):
        package = kfp_server_api.V2beta1PipelineVersion(
            package_url=kfp_server_api.V2beta1Url(pipeline_url=url)
        )
        return api.pipeline_service_create_pipeline_and_version(
            body=kfp_server_api.V2beta1CreatePipelineAndVersionRequest(
                pipeline=kfp_server_api.V2beta1Pipeline(display_name=name),
                pipeline_version=package,
            )
        )

    name = unique("by-url")
    made = create(name, served)
    assert made.display_name == name
    versions = api.pipeline_service_list_pipeline_versions(made.pipeline_id).pipeline_versions
    assert [one.package_url.pipeline_url for one in versions] == [served]
    with pytest.raises(kfp_server_api.ApiException) as refused:
        create(unique("inside"), "http://169.254.169.254/latest/meta-data")
    assert refused.value.status == 400 and "not a public address" in refused.value.body


NOT_THERE = "404, as upstream: it registers none"


@covers("AuthServiceApi.auth_service_authorize", "any request", NOT_THERE)
@covers("DummyFilterServiceApi.dummy_filter_service_get_filter", "any request", NOT_THERE)
@covers(
    "VisualizationServiceApi.visualization_service_create_visualization_v1",
    "any request",
    NOT_THERE,
)
@covers(
    "ReportServiceApi.report_service_report_workflow",
    "any request",
    "404: it is for upstream's own agents, and there are none here",
)
@covers(
    "ReportServiceApi.report_service_report_scheduled_workflow",
    "any request",
    "404: it is for upstream's own agents, and there are none here",
)
def test_what_is_not_there(generated):
    report = generated("ReportServiceApi")
    visualization = generated("VisualizationServiceApi")
    for call in (
        generated("AuthServiceApi").auth_service_authorize,
        generated("DummyFilterServiceApi").dummy_filter_service_get_filter,
        lambda: visualization.visualization_service_create_visualization_v1(
            "ns", kfp_server_api.V2beta1Visualization()
        ),
        lambda: report.report_service_report_workflow("{}"),
        lambda: report.report_service_report_scheduled_workflow("{}"),
    ):
        with pytest.raises(kfp_server_api.ApiException) as missing:
            call()
        assert missing.value.status == 404, missing.value.body
