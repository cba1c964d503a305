//! The rows of the transcoding table that is our reference, each in its dialects.

use std::time::{Duration, Instant};

use ferroflow_proto::google::rpc;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::echo::ResponsePlan;
use crate::test_gateway::TestGateway;

/// A row: what is asked, and what becomes of it.
struct Row {
    line: &'static str,
    method: &'static str,
    target: &'static str,
    body: &'static str,
    status: u16,
    expected: &'static str,
}

fn rows() -> impl Iterator<Item = Row> {
    let lines = include_str!("rows.txt").lines();
    lines.filter(|line| !line.starts_with('#')).map(|line| {
        let parts: Vec<_> = line.split(" | ").collect();
        let [_, request, body, status, expected] = parts[..] else {
            panic!("{line}");
        };
        let (method, target) = request.split_once(' ').unwrap();
        Row {
            line,
            method,
            target,
            body: if body == "-" { "" } else { body },
            status: status.parse().unwrap(),
            expected,
        }
    })
}

#[test]
fn a_request_becomes_the_message_that_the_reference_says() {
    let gateway = TestGateway::start();
    for row in rows() {
        let Row {
            line: what,
            method,
            target,
            body,
            status,
            expected,
        } = row;
        let answer = gateway.ask(method, target, &["content-type: application/json"], body);
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        let call = gateway.last_call();
        if status != 200 {
            let json = answer.json();
            let message = json["message"].as_str().unwrap();
            assert!(message.contains(expected), "{what}: {message}");
            assert!(json["code"].is_number(), "{what}: {json}");
            assert!(call.is_none(), "{what}: the service was asked");
            continue;
        }
        let (rpc, message) = call.unwrap();
        let (expected_rpc, json) = expected.split_once(' ').unwrap();
        let json: Value = serde_json::from_str(json).unwrap();
        assert_eq!(rpc, expected_rpc, "{what}");
        assert_eq!(serde_json::to_value(&message).unwrap(), json, "{what}");
    }
}

#[test]
fn another_method_is_told_which_there_are() {
    let gateway = TestGateway::start();
    for (target, status) in [("/v1/items/7", 405), ("/apis/v2beta1/items/7", 501)] {
        let answer = gateway.ask("DELETE", target, &[], "");
        assert_eq!(answer.status, status);
        let allowed = answer.header("allow").unwrap();
        assert!(allowed.split(", ").any(|one| one == "GET"), "{allowed}");
    }
    let head = gateway.ask("HEAD", "/v1/items/7", &[], "");
    assert_eq!((head.status, head.text()), (200, ""));
}

#[test]
fn only_json_is_read_as_json() {
    let gateway = TestGateway::start();
    for (target, kind, status) in [
        ("/v1/whole/x", "application/json; charset=utf-8", 200),
        ("/v1/whole/x", "Application/JSON", 200),
        ("/v1/whole/x", "text/plain", 415),
        ("/v1/whole/x", "application/x-www-form-urlencoded", 415),
        (
            "/apis/v2beta1/whole/x",
            "application/x-www-form-urlencoded",
            200,
        ),
        ("/v1/blobs/x", "text/plain", 200),
    ] {
        let header = format!("content-type: {kind}");
        let answer = gateway.ask("POST", target, &[&header], r#"{"flag":true}"#);
        assert_eq!(answer.status, status, "{target} {kind}: {}", answer.text());
    }
    assert_eq!(
        gateway
            .ask("POST", "/v1/whole/x", &["content-type: text/plain"], "")
            .status,
        200
    );
    assert_eq!(
        gateway.ask("POST", "/v1/whole/x", &[], "{}").status,
        200,
        "unsaid"
    );
}

/// Row 24.
#[test]
fn answers_have_the_names_of_the_contract_and_no_defaults() {
    let gateway = TestGateway::start();
    for target in ["/v1/query", "/apis/v2beta1/query"] {
        let query = "int64=5&page_size=2&value=3&double=3&int32=0&time=2026-01-02T03:04:05Z";
        let answer = gateway.get(&format!("{target}?{query}"));
        assert_eq!(
            answer.json(),
            json!({
                "int64": "5", "page_size": 2, "value": 3, "double": 3,
                "time": "2026-01-02T03:04:05Z",
            }),
            "{target}"
        );
    }
}

/// Row 29.
#[test]
fn one_field_may_be_the_answer() {
    let gateway = TestGateway::start();
    for (method, target, body, expected) in [
        ("PUT", "/v1/texts", r#"["a"]"#, json!(["a"])),
        ("PUT", "/v1/texts", "", json!([])),
        ("PUT", "/v1/labels", r#"{"a":"b"}"#, json!({"a": "b"})),
        ("PUT", "/v1/labels", "", json!({})),
        ("PUT", "/v1/text", r#""a""#, json!("a")),
        ("PUT", "/v1/text", "", json!("")),
        ("GET", "/v1/inside?inner.size=2", "", json!({"size": 2})),
        ("GET", "/v1/inside", "", Value::Null),
    ] {
        let answer = gateway.ask(method, target, &["content-type: application/json"], body);
        assert_eq!(answer.json(), expected, "{target} {body}");
    }
}

/// Row 25.
#[test]
fn an_error_is_a_status_with_its_details() {
    let gateway = TestGateway::start();
    let info = rpc::RetryInfo {
        retry_delay: Some(prost_types::Duration {
            seconds: 7,
            nanos: 0,
        }),
    };
    let kind = "type.googleapis.com/google.rpc.RetryInfo";
    let whole = rpc::Status {
        code: 14,
        message: "later".to_owned(),
        details: vec![prost_types::Any {
            type_url: kind.to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    let details = whole.encode_to_vec().into();
    gateway.echo.plan(ResponsePlan {
        status: Some(Status::with_details(Code::Unavailable, "later", details)),
        ..ResponsePlan::default()
    });

    let answer = gateway.get("/v1/query");

    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("7"))
    );
    assert_eq!(
        answer.json(),
        json!({"code": 14, "message": "later", "details": [{"@type": kind, "retry_delay": "7s"}]})
    );
}

/// Rows 26 and 27.
#[test]
fn a_stream_is_lines_events_or_frames_and_its_error_is_the_last_of_them() {
    let gateway = TestGateway::start();
    let error = r#"{"error":{"code":5,"message":"gone"}}"#;
    let lines = [r#"{"int32":7}"#, r#"{"int32":7}"#, error];
    let frame = r#"{"result":{"int32":7}}"#;
    let frames = [frame, frame, error];
    for (accept, kind, expected) in [
        (None, "application/json", frames),
        (Some("*/*"), "application/json", frames),
        (Some("application/json"), "application/json", frames),
        (Some("application/x-ndjson"), "application/x-ndjson", lines),
    ] {
        for path in ["/v1/stream", "/apis/v2beta1/stream"] {
            gateway.echo.plan(ResponsePlan {
                count: 2,
                status: Some(Status::not_found("gone")),
                ..ResponsePlan::default()
            });
            let accepted = accept.map(|accept| format!("accept: {accept}"));
            let headers: Vec<_> = accepted.iter().map(String::as_str).collect();
            let answer = gateway.ask("GET", &format!("{path}?int32=7"), &headers, "");
            let what = format!("{path} {accept:?}");
            assert_eq!(answer.header("content-type"), Some(kind), "{what}");
            let lines: Vec<_> = answer.text().lines().collect();
            assert_eq!(lines, expected, "{what}");
        }
    }
    let events = gateway.ask(
        "GET",
        "/v1/stream?int32=7",
        &["accept: text/event-stream"],
        "",
    );
    let text = events.text();
    assert_eq!(text.matches("data: {\"int32\":7}\n").count(), 2, "{text}");
    assert!(
        text.contains("event: error\ndata: {\"code\":5,\"message\":\"gone\"}\n"),
        "{text}"
    );

    gateway.echo.plan(ResponsePlan {
        status: Some(Status::not_found("gone")),
        ..ResponsePlan::default()
    });
    let answer = gateway.get("/v1/stream");
    assert!(answer.text().starts_with(error), "{}", answer.text());
}

/// Row 30.
#[test]
fn a_call_ends_by_its_deadline() {
    let gateway = TestGateway::start();
    gateway.echo.plan(ResponsePlan {
        delay: Duration::from_secs(20),
        count: 1,
        ..ResponsePlan::default()
    });
    for target in ["/v1/query", "/apis/v2beta1/query", "/v1/download"] {
        let begun = Instant::now();
        let answer = gateway.ask("GET", target, &["grpc-timeout: 200m"], "");
        assert_eq!(answer.status, 504, "{target}: {}", answer.text());
        assert!(begun.elapsed() < Duration::from_secs(10), "{target}");
        let headers = gateway.echo.calls().pop().unwrap().headers;
        assert_eq!(headers["grpc-timeout"], "200m", "{target}");
    }
    // The headers of a stream are sent before the deadline: its error is a line.
    for accept in ["application/x-ndjson", "text/event-stream"] {
        let begun = Instant::now();
        let headers = ["grpc-timeout: 200m", &format!("accept: {accept}")];
        let answer = gateway.ask("GET", "/v1/stream", &headers, "");
        let text = answer.text();
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{accept}: {text}"
        );
        assert_eq!(text.matches(r#"{"code":4,"message""#).count(), 1, "{text}");
    }
    gateway.echo.plan(ResponsePlan::default());
    let answer = gateway.ask("GET", "/v1/query", &["grpc-timeout: 99999999H"], "");
    assert_eq!(answer.status, 200);
    let headers = gateway.echo.calls().pop().unwrap().headers;
    assert_eq!(headers["grpc-timeout"], "86400000m", "capped");
    let answer = gateway.ask("GET", "/v1/query", &["grpc-timeout: soon"], "");
    assert_eq!(answer.status, 400);
}
