//! The gateway before the built platform (`FERROFLOW_BIN`): what it lets in, refuses, and answers
//! itself.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use ferroflow_proto::kfp::v2beta1::healthz_service_client::HealthzServiceClient;
use ferroflow_testkit::Platform;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

fn platform() -> (tempfile::TempDir, Platform) {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &["--body-max", "65536"]);
    (data, platform)
}

async fn channel(platform: &Platform) -> Channel {
    let endpoint = Endpoint::from_shared(platform.url().to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
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
fn the_prefix_of_kubeflows_front_is_an_alias_of_the_root() {
    let (_data, platform) = platform();
    for path in [
        "/apis/v2beta1/experiments",
        "/apis/v2beta1/experiments?page_size=1",
        "/apis/v2beta1/healthz",
        "/healthz",
    ] {
        let (status, found) = platform.get(&format!("/pipeline{path}"));
        assert_eq!((status, found), (200, platform.get(path).1), "{path}");
    }
    let named = json!({"display_name": "by prefix"});
    let (status, made) = platform.post("/pipeline/apis/v2beta1/experiments", &named);
    assert_eq!(status, 200, "{made}");
    assert_eq!(platform.get("/pipelineapis/v2beta1/experiments").0, 404);
    let page = platform.text("/pipeline/", "text/html");
    assert_eq!(page, platform.text("/", "text/html"));
}

/// A connection whose request was answered unread would be closed under the client's next request.
#[test]
fn a_refusal_leaves_the_connection_open() {
    let (_data, platform) = platform();
    let address = platform.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    let body = "x".repeat(20_000);
    for (path, host, status) in [
        ("/apis/v2beta1/nothing", "localhost", "404"),
        ("/apis/v2beta1/runs", "evil.example", "421"),
        ("/apis/v2beta1/healthz", "localhost", "200"),
        ("/apis/v2beta1/nothing", "localhost", "404"),
    ] {
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        // The answer may come before the rest of the body.
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = BufReader::new(stream.try_clone().unwrap());
        let mut first = String::new();
        answer.read_line(&mut first).unwrap();
        assert!(first.contains(status), "{path}: {first:?}");
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        answer.read_exact(&mut vec![0; length]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_over_grpc() {
    let (_data, platform) = platform();
    let mut client = HealthzServiceClient::new(channel(&platform).await);

    let health = client.get_healthz(()).await.unwrap().into_inner();

    assert!(!health.multi_user);
    assert_eq!(health.pipeline_store, "database");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_what_can_be_called() {
    let (_data, platform) = platform();
    let mut client = ServerReflectionClient::new(channel(&platform).await);
    let mut ask = async |message: MessageRequest| {
        let request = ServerReflectionRequest {
            message_request: Some(message),
            ..ServerReflectionRequest::default()
        };
        let request = futures::stream::iter([request]);
        let mut answers = client.server_reflection_info(request).await?.into_inner();
        answers.message().await
    };

    let listed = ask(MessageRequest::ListServices(String::new())).await;
    let listed = listed.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = listed else {
        panic!("{listed:?}");
    };
    let listed: BTreeSet<_> = listed.service.into_iter().map(|one| one.name).collect();
    let kfp = |name: &str| format!("kubeflow.pipelines.backend.api.v2beta1.{name}");
    for service in [
        "ExperimentService",
        "HealthzService",
        "PipelineService",
        "RunService",
    ] {
        assert!(listed.contains(&kfp(service)), "{service}: {listed:?}");
    }
    for service in ["AuthService", "DummyFilterService", "VisualizationService"] {
        assert!(!listed.contains(&kfp(service)), "{service}: {listed:?}");
        let described = ask(MessageRequest::FileContainingSymbol(kfp(service))).await;
        assert_eq!(
            described.unwrap_err().code(),
            tonic::Code::NotFound,
            "{service}"
        );
    }
    assert!(!listed.contains("ferroflow.attempts.v1.AttemptService"));
    for path in ["/apis/v2beta1/auth", "/apis/v2beta1/filters"] {
        assert_eq!(platform.get(path).0, 404, "{path}");
    }
}
