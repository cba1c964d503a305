//! A trace context, from a request by way of every service into the user's command.

use std::time::Duration;

use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::json;

#[test]
fn a_trace_goes_from_http_into_the_command() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
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
