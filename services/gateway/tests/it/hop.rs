//! What the hop through the gateway costs: one cheap call of 1 KiB, over and over on one connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ferroflow_service::grpc;
use ferroflow_service::identity::HEADER;
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Caller, Clock as _};
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value};
use tonic::transport::{Channel, Endpoint};

use crate::echo::RawCodec;
use crate::test_gateway::TestGateway;

const WARM_UP_CALLS: usize = 500;
const CALLS: usize = 5000;

/// The middle of the times of a call, and what all of them were.
fn median(mut call: impl FnMut()) -> Duration {
    for _ in 0..WARM_UP_CALLS {
        call();
    }
    let mut times: Vec<_> = (0..CALLS)
        .map(|_| {
            let begun = Instant::now();
            call();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[CALLS / 2]
}

/// Calls of the echo over native gRPC.
fn native(gateway: &TestGateway, channel: Channel, message: &Bytes) -> Duration {
    let now = SystemClock.now().seconds();
    let token = gateway.keys.signer().sign(&Caller::local(), "echo", now);
    let token: tonic::metadata::MetadataValue<_> = token.unwrap().parse().unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    median(|| {
        let mut request = tonic::Request::new(message.clone());
        request.metadata_mut().insert(HEADER, token.clone());
        let answer = gateway.runtime.block_on(async {
            client.ready().await.unwrap();
            let path = "/echo.v1.Echo/Query".parse().unwrap();
            client.unary(request, path, RawCodec).await
        });
        assert_eq!(answer.unwrap().into_inner(), message);
        gateway.echo.calls();
    })
}

/// `cargo xtask bench` reads what is printed.
#[test]
#[ignore = "a measurement: cargo xtask bench runs it"]
fn the_hop_of_a_call_of_a_kibibyte() {
    let gateway = TestGateway::start();
    let text = "x".repeat(1000);
    let mut message = DynamicMessage::new(gateway.message("Everything"));
    message.set_field_by_name("text", Value::String(text.clone()));
    message.set_field_by_name("int32", Value::I32(7));
    let message = Bytes::from(message.encode_to_vec());
    let target = format!("/v1/items/{text}?int32=7");

    // A channel belongs to the runtime that it is made in.
    let socket = gateway.socket.clone();
    let channel = gateway.runtime.block_on(async { grpc::connect(socket) });
    let direct = native(&gateway, channel, &message);
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap();
    let endpoint = endpoint.tcp_nodelay(true);
    let channel = gateway.runtime.block_on(endpoint.connect()).unwrap();
    let through = native(&gateway, channel, &message);
    let mut connection = gateway.connect();
    let rest = median(|| {
        let answer = connection.ask("GET", &target, &[], &[]);
        assert_eq!(answer.status, 200);
        gateway.echo.calls();
    });

    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "hop: direct {:.1} us, grpc {:.1} us, rest {:.1} us",
        micros(direct),
        micros(through),
        micros(rest)
    );
}
