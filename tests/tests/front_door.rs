//! What the gateway lets in, refuses, and passes on; over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

use std::time::Duration;

use ferroflow_testkit::scene::eventually;
use ferroflow_testkit::services::{Process, free_port, identity, settings};
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

fn platform() -> (tempfile::TempDir, Platform) {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &["--body-max", "65536"]);
    (data, platform)
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

#[test]
fn a_trace_goes_from_http_into_the_command() {
    let (_data, platform) = platform();
    let script = "echo \"$TRACEPARENT\"".to_owned();
    let spec = shell_pipeline("trace", &[("t".to_owned(), script, Vec::new())]);
    let run = json!({"display_name": "trace", "pipeline_spec": spec}).to_string();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let header = format!("00-{trace}-b7ad6b7169203331-01");

    let headers = [("traceparent", header.as_str())];
    let (status, made) = platform.request("POST", "/apis/v2beta1/runs", &headers, &run);
    assert_eq!(status, 200, "{made}");
    let run = made["run_id"].as_str().unwrap();
    platform.wait(run, Duration::from_secs(30));

    let (_, tasks) = platform.get(&format!("/apis/ferroflow/v1/runs/{run}/tasks"));
    let task = tasks["tasks"][1]["task_id"].as_str().unwrap();
    let log = platform.text(
        &format!("/apis/ferroflow/v1/runs/{run}/tasks/{task}/log"),
        "*/*",
    );
    assert!(log.starts_with(&format!("00-{trace}-")), "{log}");
}

#[test]
fn other_hosts_and_origins_stay_outside() {
    let (_data, platform) = platform();
    let list = "/apis/v2beta1/runs";
    for (headers, expected) in [
        (vec![], 200),
        (vec![("origin", platform.url())], 200),
        (vec![("host", "evil.example")], 421),
        (vec![("origin", "http://evil.example")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
    ] {
        let (status, answer) = platform.request("GET", list, &headers, "");
        assert_eq!(status, expected, "{headers:?}: {answer}");
    }
}

/// Method, path, body; status and words of the answer.
const REFUSED: &[(&str, &str, &str, u16, &str)] = &[
    (
        "POST",
        "/apis/v2beta1/runs",
        "{\"displayNam\": \"x\"}",
        400,
        "displayNam",
    ),
    (
        "POST",
        "/apis/v2beta1/runs",
        "{",
        400,
        "the body is not a Run",
    ),
    (
        "POST",
        "/apis/v2beta1/runs",
        "{}",
        400,
        "pipeline_spec or pipeline_version_reference",
    ),
    (
        "GET",
        "/apis/v2beta1/runs?page_size=x",
        "",
        400,
        "page_size",
    ),
    (
        "GET",
        "/apis/v2beta1/runs?page_size=-1",
        "",
        400,
        "must not be negative",
    ),
    ("GET", "/apis/v2beta1/runs?filter=%7B", "", 400, "filter"),
    ("GET", "/apis/v2beta1/runs/%2e%2e/x", "", 400, "path"),
    ("PUT", "/apis/v2beta1/runs", "", 501, "Method Not Allowed"),
    (
        "PUT",
        "/apis/ferroflow/v1/artifacts",
        "",
        405,
        "Method Not Allowed",
    ),
    ("GET", "/apis/v2beta1/nothing", "", 404, "Not Found"),
    (
        "GET",
        "/apis/ferroflow/v1/artifacts?nope=1",
        "",
        400,
        "unknown parameter nope",
    ),
    (
        "POST",
        "/apis/v2beta1/visualizations/x",
        "{}",
        404,
        "Not Found",
    ),
];

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let (_data, platform) = platform();
    let large = format!("{{\"display_name\": \"{}\"}}", "x".repeat(70_000));
    let too_large = (
        "POST",
        "/apis/v2beta1/runs",
        large.as_str(),
        400,
        "larger than 65536 bytes",
    );
    for (method, path, body, status, words) in REFUSED.iter().copied().chain([too_large]) {
        let (found, answer) = platform.request(method, path, &[], body);
        assert_eq!(found, status, "{method} {path}: {answer}");
        assert!(
            message(&answer).contains(words),
            "{method} {path}: {answer}"
        );
    }
}

#[test]
fn a_page_token_of_another_query_is_refused() {
    let (_data, platform) = platform();
    for number in 0..3 {
        let made = json!({"display_name": format!("e{number}")});
        assert_eq!(platform.post("/apis/v2beta1/experiments", &made).0, 200);
    }
    let list = "/apis/v2beta1/experiments?page_size=2";
    let (_, first) = platform.get(&format!("{list}&sort_by=name"));
    let token = first["next_page_token"].as_str().unwrap();

    let (status, second) = platform.get(&format!("{list}&page_token={token}"));
    // Three were made, beside the default one.
    assert_eq!(
        (status, second["experiments"].as_array().unwrap().len()),
        (200, 2)
    );
    let (status, refused) = platform.get(&format!("{list}&sort_by=created_at&page_token={token}"));
    assert_eq!(status, 400);
    assert!(
        message(&refused).contains("page token does not match"),
        "{refused}"
    );
}

#[test]
fn empty_tags_clear_and_absent_ones_keep() {
    let (_data, platform) = platform();
    let made = json!({"name": "p", "tags": {"team": "a"}});
    let (_, made) = platform.post("/apis/v2beta1/pipelines", &made);
    let path = format!(
        "/apis/v2beta1/pipelines/{}",
        made["pipeline_id"].as_str().unwrap()
    );

    let (_, kept) = platform.request("PATCH", &path, &[], "{\"display_name\": \"q\"}");
    assert_eq!(
        (&kept["display_name"], &kept["tags"]),
        (&json!("q"), &json!({"team": "a"}))
    );
    let (_, cleared) = platform.request("PATCH", &path, &[], "{\"tags\": {}}");
    assert_eq!(cleared["tags"], Value::Null);
}

#[test]
fn health_metrics_and_the_description_are_there() {
    let (_data, platform) = platform();

    assert_eq!(platform.get("/healthz").1, json!({"status": "ok"}));
    assert_eq!(
        platform.get("/apis/v2beta1/healthz").1["pipeline_store"],
        "database"
    );
    assert_eq!(platform.get("/openapi.json").1["openapi"], "3.1.0");
    assert!(
        platform
            .text("/metrics", "*/*")
            .contains("ferroflow_gateway_requests_total")
    );
}

#[test]
fn a_service_of_its_own_shows_its_metrics_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let settings = settings(
        folder.path(),
        &json!({"identity": identity(folder.path()), "telemetry": {"metrics_listen": address}}),
    );

    let data = folder.path().join("svc");
    let _service = Process::start(&data, &["pipeline-svc", "--config", &settings]);

    eventually(Duration::from_secs(10), "metrics are shown", || {
        let mut answer = ureq::get(format!("http://{address}/metrics"))
            .call()
            .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        text.contains("ferroflow_pipelines_runs_driven 0")
    });
}

#[test]
fn a_root_that_processes_cannot_write_to_is_refused_with_the_reason() {
    let (_data, platform) = platform();
    let spec = shell_pipeline("root", &[("t".to_owned(), "true".to_owned(), Vec::new())]);
    let config = json!({"pipeline_root": "s3://bucket/x"});
    let run = json!({"display_name": "r", "pipeline_spec": spec, "runtime_config": config});

    let (status, refused) = platform.post("/apis/v2beta1/runs", &run);

    assert_eq!(status, 400, "{refused}");
    let said = refused.to_string();
    assert!(said.contains("runtime_config.pipeline_root"), "{said}");
    assert!(said.contains("processes of this machine"), "{said}");
}
