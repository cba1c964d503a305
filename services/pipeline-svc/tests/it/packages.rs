//! Pipelines and versions that are fetched by URL.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

fn platform(more: &[&str]) -> (tempfile::TempDir, Platform) {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), more);
    (data, platform)
}

/// A server of packages on loopback; it answers `/p.yaml` and redirects `/away`.
fn package_server(location: String) -> u16 {
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
                _ => format!("302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"),
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
    let url = format!("http://127.0.0.1:{}/p.yaml", package_server(String::new()));
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
        let (found, answer) = platform.post(path, &body);
        assert_eq!(found, status, "{path}: {answer}");
        assert!(answer.to_string().contains(words), "{path}: {answer}");
    }
}

#[test]
fn urls_do_not_reach_private_addresses() {
    let inside = package_server(String::new());
    let away = format!("http://127.0.0.2:{inside}/p.yaml");
    let front = package_server(away);
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
        let text = refused.to_string();
        assert!(text.contains("is not a public address"), "{text}");
        assert!(text.contains("pipelines.package_networks"), "{text}");
        let (_, listed) = platform.get("/apis/v2beta1/pipelines");
        assert_eq!(listed, json!({}), "nothing is stored");
    }
}
