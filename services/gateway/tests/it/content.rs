//! `google.api.HttpBody`: bytes that go through as they are, and not into memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prost_reflect::Value;
use tonic::Status;

use crate::echo::ResponsePlan;
use crate::test_gateway::TestGateway;

const MIB: usize = 1024 * 1024;

fn pieces(count: usize, size: usize) -> ResponsePlan {
    ResponsePlan {
        count,
        content_type: "application/octet-stream".to_owned(),
        piece: vec![7; size],
        ..ResponsePlan::default()
    }
}

#[test]
fn a_stream_of_bodies_is_one_body() {
    let gateway = TestGateway::start();
    gateway.echo.plan(pieces(40, MIB / 4));

    let answer = gateway.get("/v1/download");

    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("content-disposition"), Some("attachment"));
    assert_eq!(answer.body.len(), 10 * MIB);
    assert!(answer.body.iter().all(|byte| *byte == 7));
}

/// Nothing reads: what the service may make is a window of each connection on the way and what the
/// kernel takes for the client, and not the whole.
#[test]
fn a_body_that_is_not_read_is_not_fetched() {
    const COUNT: usize = 4096;
    let gateway = TestGateway::start();
    gateway.echo.plan(pieces(COUNT, MIB / 4));
    let mut connection = gateway.connect();
    connection.send("GET", "/v1/download", &[], &[]);
    assert_eq!(connection.head().status, 200);

    let made = || gateway.echo.made.load(Ordering::SeqCst);
    let mut before = usize::MAX;
    let begun = Instant::now();
    while made() != before && begun.elapsed() < Duration::from_secs(20) {
        before = made();
        std::thread::sleep(Duration::from_millis(500));
    }
    let waiting = made() * MIB / 4;

    // Loopback's socket buffers are up to 6 MiB for who reads and 4 MiB for who writes.
    assert!(waiting <= 16 * MIB, "{waiting} bytes of 1 GiB were made");
    drop(connection);
    gateway.echo.plan(pieces(1, 1));
    assert_eq!(gateway.get("/v1/download").body, [7], "others go on");
}

#[test]
fn a_body_of_one_message_is_bytes_as_well() {
    let gateway = TestGateway::start();
    gateway.echo.plan(ResponsePlan {
        content_type: "text/csv".to_owned(),
        piece: b"a,b\n1,2\n".to_vec(),
        ..ResponsePlan::default()
    });

    let answer = gateway.get("/v1/blob");

    assert_eq!((answer.status, answer.text()), (200, "a,b\n1,2\n"));
    assert_eq!(answer.header("content-type"), Some("text/csv"));
}

#[test]
fn a_content_type_that_is_no_header_is_not_passed_on() {
    let gateway = TestGateway::start();
    for rpc in ["/v1/blob", "/v1/download"] {
        gateway.echo.plan(ResponsePlan {
            count: 1,
            content_type: "text/plain\r\nset-cookie: a=b".to_owned(),
            ..ResponsePlan::default()
        });
        let answer = gateway.get(rpc);
        assert_eq!(answer.status, 500, "{rpc}");
        assert_eq!(answer.header("set-cookie"), None);
    }
}

#[test]
fn an_error_before_the_first_message_is_an_error_and_one_after_it_cuts_the_body() {
    let gateway = TestGateway::start();
    let failing = |count| ResponsePlan {
        status: Some(Status::not_found("it is gone")),
        ..pieces(count, MIB / 4)
    };

    for rpc in ["/v1/download", "/v1/blob"] {
        gateway.echo.plan(failing(0));
        let answer = gateway.get(rpc);
        assert_eq!(answer.status, 404, "{rpc}");
        assert_eq!(answer.json()["message"], "it is gone");
    }
    gateway.echo.plan(failing(3));
    let mut connection = gateway.connect();
    connection.send("GET", "/v1/download", &[], &[]);
    assert_eq!(connection.head().status, 200);
    let mut read = 0;
    while let Some(piece) = connection.piece() {
        read += piece.len();
    }
    assert!(read <= 3 * MIB / 4, "{read}");
    assert!(connection.is_closed(), "the client sees that it was cut");
}

#[test]
fn a_body_of_a_request_is_passed_on_as_it_is() {
    let gateway = TestGateway::start();
    let body = "  {\"not\": json,  ";

    let answer = gateway.ask(
        "POST",
        "/v1/blobs/b%2F1",
        &["content-type: application/x-own; a=b"],
        body,
    );

    assert_eq!(answer.status, 200, "{}", answer.text());
    let (rpc, message) = gateway.last_call().unwrap();
    assert_eq!(rpc, "Upload");
    assert_eq!(
        message.get_field_by_name("name").unwrap().as_ref(),
        &Value::String("b/1".to_owned())
    );
    let content = message.get_field_by_name("content").unwrap();
    let content = content.as_message().unwrap();
    for (field, expected) in [
        (
            "content_type",
            Value::String("application/x-own; a=b".to_owned()),
        ),
        ("data", Value::Bytes(body.to_owned().into())),
    ] {
        assert_eq!(
            content.get_field_by_name(field).unwrap().as_ref(),
            &expected
        );
    }
    let large = "x".repeat(crate::test_gateway::BODY_MAX + 1);
    let answer = gateway.ask("POST", "/v1/blobs/b", &[], &large);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("gateway.body_max"));
}

/// Resident memory of this process in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}

/// This process is the gateway, the service and the client, which counts what it reads: so it is
/// more than the gateway alone takes.
#[test]
#[ignore = "measures the memory of the process, which other tests use as well"]
fn a_body_of_a_gibibyte_takes_eight_mebibytes() {
    let gateway = TestGateway::start();
    gateway.echo.plan(pieces(64, MIB / 4));
    assert_eq!(gateway.get("/v1/download").body.len(), 16 * MIB, "warm");
    gateway.echo.plan(pieces(4096, MIB / 4));
    let done = AtomicBool::new(false);
    let before = resident();

    let (read, highest) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut highest = 0;
            while !done.load(Ordering::SeqCst) {
                highest = highest.max(resident());
                std::thread::sleep(Duration::from_millis(2));
            }
            highest
        });
        let mut connection = gateway.connect();
        connection.send("GET", "/v1/download", &[], &[]);
        connection.head();
        let mut read = 0;
        while let Some(piece) = connection.piece() {
            read += piece.len();
        }
        done.store(true, Ordering::SeqCst);
        (read, watching.join().unwrap())
    });

    let more = highest.saturating_sub(before);
    println!("{read} bytes read, resident {before} KiB, at most {more} KiB more");
    assert_eq!(read, 1024 * MIB);
    assert!(more <= 8 * 1024, "{more} KiB more");
}
