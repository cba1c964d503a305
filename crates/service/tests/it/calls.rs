//! What happens to calls.

use std::time::Duration;

use ferroflow_proto::events::v1::WatchRequest;
use ferroflow_proto::events::v1::event_service_client::EventServiceClient;
use ferroflow_service::grpc::{connect, connect_tcp};
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::Runner;
use ferroflow_service::status::from_status;
use ferroflow_types::ErrorKind;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{collect_events, scripted_request, serve, serve_on};

#[tokio::test]
async fn a_service_knows_who_calls() {
    let served = serve();

    let (sources, status) = collect_events(
        connect(served.socket.clone()),
        scripted_request(&served.keys, ""),
    )
    .await;

    assert_eq!(sources, ["ada"]);
    assert!(status.is_none(), "{status:?}");
}

#[tokio::test]
async fn the_same_works_over_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let (keys, _stop) = serve_on(listener);

    let (sources, _) =
        collect_events(connect_tcp(&uri).unwrap(), scripted_request(&keys, "")).await;

    assert_eq!(sources, ["ada"]);
    assert!(connect_tcp("not a uri").is_err());
}

#[tokio::test]
async fn a_call_without_an_identity_or_with_a_foreign_one_is_refused() {
    let served = serve();
    let foreign = serve();
    let channel = connect(served.socket.clone());

    for request in [
        Request::new(WatchRequest::default()),
        scripted_request(&foreign.keys, ""),
    ] {
        let (sources, status) = collect_events(channel.clone(), request).await;
        assert!(sources.is_empty());
        assert_eq!(status.unwrap().code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn health_is_told_to_anybody() {
    let served = serve();
    let mut health = HealthClient::new(connect(served.socket.clone()));

    let answer = health.check(HealthCheckRequest::default()).await.unwrap();

    assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_panic_is_an_internal_error_that_tells_nothing_and_the_connection_stays() {
    let served = serve();
    let channel = connect(served.socket.clone());

    for (panics, before) in [("panic", 0), ("panic later", 1)] {
        let (sources, status) =
            collect_events(channel.clone(), scripted_request(&served.keys, panics)).await;
        let status = status.unwrap();
        assert_eq!(sources.len(), before, "{panics}");
        assert_eq!(status.code(), Code::Internal, "{panics}");
        assert!(!format!("{status:?}").contains("password"));
        assert!(status.message().contains("request "), "{status:?}");
    }
    let (sources, _) = collect_events(channel, scripted_request(&served.keys, "")).await;
    assert_eq!(sources, ["ada"]);
}

#[tokio::test]
async fn an_error_arrives_with_its_kind_and_reason() {
    let served = serve();

    let (_, status) = collect_events(
        connect(served.socket.clone()),
        scripted_request(&served.keys, "fail"),
    )
    .await;

    let failure = from_status(&status.unwrap()).unwrap();
    assert_eq!(failure.kind, ErrorKind::AlreadyExists);
    assert_eq!(failure.reason, "TAKEN");
    assert_eq!(failure.message, "the name is taken");
}

#[tokio::test]
async fn calls_are_counted_by_how_they_ended_and_unknown_methods_under_one_name() {
    let metrics = Metrics::start(None, &mut Runner::default()).unwrap();
    let served = serve();
    let channel = connect(served.socket.clone());

    for wanted in ["", "fail", "fail later", "panic later"] {
        collect_events(channel.clone(), scripted_request(&served.keys, wanted)).await;
    }
    let token = scripted_request(&served.keys, "").metadata().clone();
    let mut unknown = tonic::client::Grpc::new(channel.clone());
    unknown.ready().await.unwrap();
    let path = "/ferroflow.events.v1.EventService/Invented";
    let codec = tonic_prost::ProstCodec::<WatchRequest, WatchRequest>::default();
    let request = Request::from_parts(token, tonic::Extensions::new(), WatchRequest::default());
    let refused = unknown.unary(request, path.parse().unwrap(), codec).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    let abandoned = EventServiceClient::new(channel)
        .watch(scripted_request(&served.keys, "flood"))
        .await
        .unwrap();
    drop(abandoned);

    let watch = r#"service="ferroflow.events.v1.EventService",method="Watch""#;
    let wanted = [
        format!(r#"{watch},code="OK""#),
        format!(r#"{watch},code="ALREADY_EXISTS""#),
        format!(r#"{watch},code="OUT_OF_RANGE""#),
        format!(r#"{watch},code="INTERNAL""#),
        format!(r#"{watch},code="CANCELLED""#),
        r#"service="other",method="other",code="UNIMPLEMENTED""#.to_owned(),
        format!("ferroflow_grpc_request_seconds_count{{{watch}}}"),
    ];
    let mut text = String::new();
    for _ in 0..200 {
        text = metrics.render();
        if wanted.iter().all(|one| text.contains(one)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for one in &wanted {
        assert!(text.contains(one), "{one} is not in {text}");
    }
    assert!(!text.contains("Invented"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_nobody_reads_do_not_hold_up_other_calls() {
    let served = serve();
    let channel = connect(served.socket.clone());
    let mut unread = Vec::new();
    for _ in 0..300 {
        let mut client = EventServiceClient::new(channel.clone());
        let flood = client.watch(scripted_request(&served.keys, "flood"));
        let flood = tokio::time::timeout(Duration::from_secs(10), flood).await;
        unread.push(flood.expect("the stream begins").unwrap());
    }
    // Until every stream has filled its window.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let call = collect_events(channel, scripted_request(&served.keys, ""));
    let (sources, status) = tokio::time::timeout(Duration::from_secs(10), call)
        .await
        .expect("the call is not held up");

    assert_eq!(sources, ["ada"], "{status:?}");
    assert_eq!(unread.len(), 300);
}
