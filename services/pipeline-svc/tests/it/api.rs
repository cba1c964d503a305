//! Details of KFP's API that its clients rely on, and what a service of its own shows.

use std::time::Duration;

use ferroflow_testkit::scene::eventually;
use ferroflow_testkit::services::{Process, free_port, identity, settings};
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

fn platform() -> (tempfile::TempDir, Platform) {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    (data, platform)
}

#[test]
fn a_filter_may_be_encoded_once_more() {
    let (_data, platform) = platform();
    let named = json!({"display_name": "a b"});
    assert_eq!(platform.post("/apis/v2beta1/experiments", &named).0, 200);
    let once = "%7B%22predicates%22%3A%5B%7B%22operation%22%3A1%2C%22key%22%3A%22name%22%2C%22\
                stringValue%22%3A%22a%20b%22%7D%5D%7D";
    for filter in [once.to_owned(), once.replace('%', "%25")] {
        let (status, found) = platform.get(&format!("/apis/v2beta1/experiments?filter={filter}"));
        assert_eq!(status, 200, "{found}");
        assert_eq!(found["experiments"][0]["display_name"], "a b", "{found}");
        assert_eq!(found["total_size"], 1);
    }
}

#[test]
fn names_of_blanks_are_refused() {
    let (_data, platform) = platform();
    let spec = shell_pipeline("s", &[("t".to_owned(), "true".to_owned(), Vec::new())]);
    let (_, made) = platform.post("/apis/v2beta1/pipelines", &json!({"name": "p"}));
    let pipeline = format!(
        "/apis/v2beta1/pipelines/{}",
        made["pipeline_id"].as_str().unwrap()
    );
    let blank = json!("  \t");
    for (method, path, body) in [
        (
            "POST",
            "/apis/v2beta1/experiments",
            json!({"display_name": blank}),
        ),
        ("POST", "/apis/v2beta1/pipelines", json!({"name": blank})),
        (
            "POST",
            "/apis/v2beta1/pipelines",
            json!({"name": "q", "display_name": blank}),
        ),
        (
            "POST",
            "/apis/v2beta1/runs",
            json!({"display_name": blank, "pipeline_spec": spec}),
        ),
        ("PATCH", pipeline.as_str(), json!({"display_name": blank})),
    ] {
        let (status, refused) = platform.request(method, path, &[], &body.to_string());
        assert_eq!(status, 400, "{path}: {refused}");
        assert!(
            refused.to_string().contains("blanks only"),
            "{path}: {refused}"
        );
    }
    let (status, refused) = platform.upload("%20", "p.json", spec.to_string().as_bytes());
    assert_eq!(status, 400, "{refused}");
    let (_, experiments) = platform.get("/apis/v2beta1/experiments");
    assert_eq!(
        experiments["total_size"], 1,
        "the default one: {experiments}"
    );
    assert_eq!(platform.get("/apis/v2beta1/pipelines").1["total_size"], 1);
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
fn a_root_that_processes_cannot_write_to_is_refused_with_the_reason() {
    let (_data, platform) = platform();
    let spec = shell_pipeline("root", &[("t".to_owned(), "true".to_owned(), Vec::new())]);
    let config = json!({"pipeline_root": "s3://bucket/x"});
    let run = json!({"display_name": "r", "pipeline_spec": spec, "runtime_config": config});

    let (status, refused) = platform.post("/apis/v2beta1/runs", &run);

    assert_eq!(status, 400, "{refused}");
    let text = refused.to_string();
    assert!(text.contains("runtime_config.pipeline_root"), "{text}");
    assert!(text.contains("processes of this machine"), "{text}");
}

#[test]
fn a_standalone_service_serves_metrics_at_the_configured_address() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let settings = settings(
        folder.path(),
        &json!({"identity": identity(folder.path()), "telemetry": {"metrics_listen": address}}),
    );

    let data = folder.path().join("svc");
    let _service = Process::start(&data, &["pipeline-svc", "--config", &settings]);

    eventually(Duration::from_secs(10), "metrics are shown", || {
        let text = Platform::at(&address).text("/metrics", "*/*");
        text.contains("ferroflow_pipelines_runs_driven 0")
    });
}
