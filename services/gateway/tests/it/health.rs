//! `grpc.health.v1.Health` of the gateway: for everybody, by whatever name they call it.

use std::time::Duration;

use ferroflow_gateway::Config;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::test_gateway::TestGateway;

/// As a prober in a cluster connects: by an address that is none of the gateway's hosts.
async fn connect(gateway: &TestGateway) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap();
    let origin = "http://10.1.2.3:8080".parse().unwrap();
    endpoint.origin(origin).connect().await.unwrap()
}

fn health_request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

/// A gateway that knows one key, which nobody here has.
fn with_keys(folder: &tempfile::TempDir) -> TestGateway {
    let keys = folder.path().join("keys");
    std::fs::write(&keys, format!("ann:{}\n", "0".repeat(64))).unwrap();
    TestGateway::with(Config {
        api_keys_file: Some(keys.display().to_string()),
        drain_s: Some(3),
        ..Config::default()
    })
}

#[test]
fn health_is_told_to_those_who_have_no_key_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = with_keys(&folder);
    gateway.runtime.block_on(async {
        let channel = connect(&gateway).await;
        let mut health = HealthClient::new(channel.clone());
        for service in [
            "",
            "echo.v1.Echo",
            "ferroflow.events.v1.EventService",
            "grpc.health.v1.Health",
        ] {
            let answer = health
                .check(health_request(service))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        }
        let unknown = health.check(health_request("x.Unknown")).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);

        let mut other = tonic::client::Grpc::new(channel);
        other.ready().await.unwrap();
        let path = "/echo.v1.Echo/Query".parse().unwrap();
        let request = tonic::Request::new(bytes::Bytes::new());
        let refused = other.unary(request, path, crate::echo::RawCodec).await;
        // The host is told first, as to any other call.
        assert_ne!(refused.unwrap_err().code(), Code::Ok);
        assert!(gateway.echo.calls().is_empty());
    });
    assert_eq!(gateway.get("/v1/query").status, 401);
}

#[test]
fn a_watch_hears_that_the_gateway_stops_while_it_still_takes_calls() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = with_keys(&folder);
    let mut status = gateway.runtime.block_on(async {
        let mut health = HealthClient::new(connect(&gateway).await);
        health
            .watch(health_request("echo.v1.Echo"))
            .await
            .unwrap()
            .into_inner()
    });
    let mut next = || {
        let message = gateway.runtime.block_on(async {
            let message = tokio::time::timeout(Duration::from_secs(5), status.message());
            message.await.unwrap()
        });
        message.unwrap().unwrap().status()
    };
    assert_eq!(next(), ServingStatus::Serving);

    gateway.stop.cancel();

    assert_eq!(next(), ServingStatus::NotServing);
    assert_eq!(gateway.get("/readyz").status, 503);
    let whole = gateway.runtime.block_on(async {
        let mut health = HealthClient::new(connect(&gateway).await);
        health
            .check(health_request(""))
            .await
            .unwrap()
            .into_inner()
            .status()
    });
    assert_eq!(whole, ServingStatus::NotServing);
}
