//! Details of KFP's API that its clients rely on, over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ferroflow_proto::kfp::v2beta1::healthz_service_client::HealthzServiceClient;
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

fn platform(more: &[&str]) -> (tempfile::TempDir, Platform) {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), more);
    (data, platform)
}

async fn channel(platform: &Platform) -> Channel {
    let endpoint = Endpoint::from_shared(platform.url().to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}

/// A server of packages on loopback; it answers `/p.yaml` and redirects `/away`.
fn packages(away: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let spec = shell_pipeline(
        "fetched",
        &[("t".to_owned(), "true".to_owned(), Vec::new())],
    );
    let body = spec.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            // The request is read whole, or closing would reset the connection.
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let length = body.len();
            let answer = match first.split(' ').nth(1) {
                Some("/p.yaml") => format!("200 OK\r\nContent-Length: {length}\r\n\r\n{body}"),
                _ => format!("302 Found\r\nLocation: {away}\r\nContent-Length: 0\r\n\r\n"),
            };
            write!(stream, "HTTP/1.1 {answer}").unwrap();
        }
    });
    port
}

fn version(url: &str) -> Value {
    json!({"name": "fetched", "package_url": {"pipeline_url": url}, "tags": {"from": "url"}})
}

#[test]
fn versions_are_fetched_by_url_where_that_is_allowed() {
    let (_data, platform) = platform(&["--package-network", "127.0.0.1"]);
    let url = format!("http://127.0.0.1:{}/p.yaml", packages(String::new()));
    let both = json!({
        "pipeline": {"display_name": "by url", "tags": {"team": "a"}},
        "pipeline_version": version(&url),
    });

    let (status, made) = platform.post("/apis/v2beta1/pipelines/create", &both);
    assert_eq!(status, 200, "{made}");
    assert_eq!(
        (&made["name"], &made["tags"]),
        (&json!("by url"), &json!({"team": "a"}))
    );
    let versions = format!(
        "/apis/v2beta1/pipelines/{}/versions",
        made["pipeline_id"].as_str().unwrap()
    );
    let (status, second) = platform.post(&versions, &version(&url));
    assert_eq!(status, 200, "{second}");
    assert_eq!(second["package_url"]["pipeline_url"], url.as_str());

    let (_, listed) = platform.get(&format!("{versions}?sort_by=created_at"));
    let listed = listed["pipeline_versions"].as_array().unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["by url", "fetched"]);
    assert!(
        listed
            .iter()
            .all(|one| one["tags"] == json!({"from": "url"}))
    );
    let run = json!({"display_name": "r", "pipeline_version_reference": {
        "pipeline_id": second["pipeline_id"], "pipeline_version_id": second["pipeline_version_id"],
    }});
    let (status, run) = platform.post("/apis/v2beta1/runs", &run);
    assert_eq!(status, 200, "{run}");

    let none = json!({"name": "none"});
    for (path, body, status, words) in [
        (versions.as_str(), version(&url), 409, "already exists"),
        (versions.as_str(), none, 400, "package_url.pipeline_url"),
        (
            "/apis/v2beta1/pipelines/create",
            both,
            409,
            "already exists",
        ),
    ] {
        let (found, said) = platform.post(path, &body);
        assert_eq!(found, status, "{path}: {said}");
        assert!(said.to_string().contains(words), "{path}: {said}");
    }
}

#[test]
fn urls_do_not_lead_inside() {
    let inside = packages(String::new());
    let away = format!("http://127.0.0.2:{inside}/p.yaml");
    let front = packages(away);
    let (_closed, closed) = platform(&[]);
    let (_open, open) = platform(&["--package-network", "127.0.0.1/32"]);
    for (platform, url) in [
        (&closed, format!("http://127.0.0.1:{inside}/p.yaml")),
        (&closed, format!("http://localhost:{inside}/p.yaml")),
        (
            &closed,
            "http://169.254.169.254/latest/meta-data".to_owned(),
        ),
        (&open, format!("http://127.0.0.1:{front}/away")),
    ] {
        let body = json!({"pipeline": {"name": "p"}, "pipeline_version": version(&url)});
        let (status, refused) = platform.post("/apis/v2beta1/pipelines/create", &body);
        assert_eq!(status, 400, "{url}: {refused}");
        let said = refused.to_string();
        assert!(said.contains("is not a public address"), "{said}");
        assert!(said.contains("pipelines.package_networks"), "{said}");
        let (_, listed) = platform.get("/apis/v2beta1/pipelines");
        assert_eq!(listed, json!({}), "nothing is stored");
    }
}

#[test]
fn the_prefix_of_kubeflows_front_is_an_alias_of_the_root() {
    let (_data, platform) = platform(&[]);
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

#[test]
fn a_filter_may_be_encoded_once_more() {
    let (_data, platform) = platform(&[]);
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

/// A connection whose request was answered unread would be closed under the client's next request.
#[test]
fn a_refusal_leaves_the_connection_open() {
    let (_data, platform) = platform(&[]);
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
            if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = told.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        answer.read_exact(&mut vec![0; length]).unwrap();
    }
}

#[test]
fn names_of_blanks_are_refused() {
    let (_data, platform) = platform(&[]);
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

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_over_grpc() {
    let (_data, platform) = platform(&[]);
    let mut client = HealthzServiceClient::new(channel(&platform).await);

    let health = client.get_healthz(()).await.unwrap().into_inner();

    assert!(!health.multi_user);
    assert_eq!(health.pipeline_store, "database");
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_what_can_be_called() {
    let (_data, platform) = platform(&[]);
    let mut client = ServerReflectionClient::new(channel(&platform).await);
    let mut ask = async |asked: MessageRequest| {
        let request = ServerReflectionRequest {
            message_request: Some(asked),
            ..ServerReflectionRequest::default()
        };
        let request = tokio_stream::once(request);
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
