//! Event streams that go on after a restart, from a cursor, over gRPC and Server-Sent Events.

use std::time::{Duration, Instant};

use ferroflow_proto::events::v1::event_service_client::EventServiceClient;
use ferroflow_proto::events::v1::{WatchRequest, WatchResponse};
use ferroflow_testkit::{Platform, agent, shell_pipeline};
use serde_json::{Value, json};

fn pipeline() -> Value {
    let task = |key: &str, upstream: &[&str]| {
        let upstream = upstream.iter().map(|key| (*key).to_owned()).collect();
        (key.to_owned(), "true".to_owned(), upstream)
    };
    shell_pipeline(
        "events",
        &[task("a", &[]), task("b", &["a"]), task("c", &["b"])],
    )
}

async fn watch(platform: &Platform, run: &str, cursor: &str) -> Vec<WatchResponse> {
    let endpoint = tonic::transport::Endpoint::from_shared(platform.url().to_owned()).unwrap();
    let mut client = EventServiceClient::new(endpoint.connect().await.unwrap());
    let request = WatchRequest {
        subject_prefix: format!("namespaces/default/runs/{run}"),
        cursor: cursor.to_owned(),
        follow: Some(false),
        ..WatchRequest::default()
    };
    let mut stream = client.watch(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        events.push(response);
    }
    events
}

/// The events once the run's end is among them.
async fn all(platform: &Platform, run: &str) -> Vec<WatchResponse> {
    for _ in 0..100 {
        let events = watch(platform, run, "").await;
        let last = events.last().and_then(|response| response.event.as_ref());
        if last.is_some_and(|event| event.r#type.ends_with("run.succeeded")) {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the end of the run is not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_from_a_cursor_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let run = platform.submit("events", &pipeline(), &json!({}));
    platform.wait(&run, Duration::from_secs(30));
    let events = all(&platform, &run).await;
    let sequences: Vec<_> = events
        .iter()
        .map(|response| response.event.as_ref().unwrap().sequence)
        .collect();
    let expected: Vec<_> = (1..).take(sequences.len()).collect();
    assert_eq!(
        sequences, expected,
        "a run's events come in order, none is missing"
    );
    drop(platform);

    let platform = Platform::start(data.path(), &[]);
    let middle = events.len() / 2;
    let rest = watch(&platform, &run, &events[middle].cursor).await;

    assert_eq!(rest, events[middle + 1..]);
    let path = format!(
        "/apis/ferroflow/v1/events?follow=false&subject_prefix=namespaces/default/runs/{run}&cursor={}",
        events[middle].cursor
    );
    let sse = platform.text(&path, "text/event-stream");
    let cursors: Vec<_> = sse
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .collect();
    let expected: Vec<_> = rest
        .iter()
        .map(|response| response.cursor.as_str())
        .collect();
    assert_eq!(cursors, expected);
    assert!(sse.contains("event: end"), "{sse}");
    // As an `EventSource` comes back: by the URL that it began with.
    let last = &rest[rest.len() - 2].cursor;
    let again = agent()
        .get(format!("{}{path}", platform.url()))
        .header("accept", "text/event-stream")
        .header("last-event-id", last);
    let again = again.call().unwrap().body_mut().read_to_string().unwrap();
    assert_eq!(again.matches("id: ").count(), 1, "{again}");

    let (status, refused) = platform.get(&format!(
        "/apis/ferroflow/v1/events?follow=false&cursor={}",
        events[0].cursor
    ));
    assert_eq!(
        status, 400,
        "a cursor of another filter is refused: {refused}"
    );
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("another filter")
    );
}

/// Clients of former releases read `result` in each line unless they ask for another form.
#[test]
fn the_form_of_the_event_stream_is_that_which_is_accepted() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let run = platform.submit("events", &pipeline(), &json!({}));
    platform.wait(&run, Duration::from_secs(30));
    let path = format!(
        "/apis/ferroflow/v1/events?follow=false&subject_prefix=namespaces/default/runs/{run}"
    );
    for (accept, framed) in [
        ("*/*", true),
        ("application/json", true),
        ("application/x-ndjson", false),
    ] {
        let text = platform.text(&path, accept);
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let message = if framed { &first["result"] } else { &first };
        assert!(message["event"].is_object(), "{accept}: {first}");
    }
}

#[test]
fn a_silent_event_stream_ends_at_its_deadline() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let path = "/apis/ferroflow/v1/events?follow=true&types=nothing";
    let begun = Instant::now();

    let (status, ended) = platform.request("GET", path, &[("grpc-timeout", "1S")], "");

    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!((status, &ended["error"]["code"]), (200, &json!(4)));
}
