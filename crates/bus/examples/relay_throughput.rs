//! How fast a relay moves a log to Kafka: `relay_throughput DATABASE BROKERS TOPIC COUNT SIZE`.
//!
//! The log is filled first, which is not measured. Prints JSON; `cargo xtask bench --kafka` reads it
//! and sets it against the brokers' own producer.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a figure that cannot be taken is no figure"
)]

use std::fmt::Write as _;
use std::time::Instant;

use ferroflow_bus::Bus;
use ferroflow_bus::kafka::{KafkaConfig, KafkaRelay};
use ferroflow_types::id::EventId;
use ferroflow_types::{CloudEvent, Timestamp};
use serde_json::json;

/// Events whose order is kept among themselves.
const KEYS: i64 = 200;

fn event(topic: &str, at: i64, size: usize) -> CloudEvent {
    let run = uuid::Uuid::from_u128(u128::from((at % KEYS).unsigned_abs()) << 64);
    CloudEvent {
        id: uuid::Uuid::now_v7().to_string().parse::<EventId>().unwrap(),
        topic: topic.to_owned(),
        event_type: "ai.ferroflow.task.succeeded".to_owned(),
        source: "//ferroflow/pipeline-svc".to_owned(),
        subject: format!("namespaces/default/runs/{run}"),
        namespace: "default".to_owned(),
        key: format!("default/{run}"),
        sequence: at / KEYS + 1,
        time: Timestamp::from_millis(1_700_000_000_000 + at),
        traceparent: None,
        authtype: None,
        authid: None,
        // No two are alike, as with real events; hex is what identifiers look like.
        data: json!({"at": at, "text": noise(at, size)}),
    }
}

/// Text of some size that a compressor cannot make vanish.
fn noise(seed: i64, size: usize) -> String {
    let mut state = seed.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(size + 16);
    while text.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        write!(text, "{state:016x}").unwrap();
    }
    text.truncate(size);
    text
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database, brokers, topic, count, size] = arguments.as_slice() else {
        println!("usage: relay_throughput DATABASE BROKERS TOPIC COUNT SIZE");
        return;
    };
    let (count, size): (i64, usize) = (count.parse().unwrap(), size.parse().unwrap());
    let bus = Bus::embedded(database).await.unwrap();
    let config = KafkaConfig {
        brokers: Some(brokers.clone()),
        ..KafkaConfig::default()
    };
    // The first event makes the topic and the connections.
    let first = event(topic, 0, size);
    let bytes = record_size(&first);
    bus.publish(&[first]).await.unwrap();
    let relay = KafkaRelay::open(&config, bus.clone()).await.unwrap();
    assert_eq!(relay.tick().await.unwrap(), 1);
    let events: Vec<i64> = (1..=count).collect();
    for chunk in events.chunks(5000) {
        let chunk: Vec<_> = chunk.iter().map(|at| event(topic, *at, size)).collect();
        bus.publish(&chunk).await.unwrap();
    }

    let begun = Instant::now();
    let mut moved = 0;
    while moved < events.len() {
        moved += relay.tick().await.unwrap();
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({"seconds": seconds, "events": moved, "bytes": bytes})
    );
}

/// What a record carries: key, value and headers.
fn record_size(event: &CloudEvent) -> usize {
    let headers = [
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", event.id.to_string()),
        ("ce_type", event.event_type.clone()),
        ("ce_source", event.source.clone()),
        ("ce_subject", event.subject.clone()),
        ("ce_time", event.time.to_string()),
        ("ce_sequence", event.sequence.to_string()),
        ("ce_namespace", event.namespace.clone()),
        ("content-type", "application/json".to_owned()),
    ];
    let headers: usize = headers
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    event.key.len() + event.data.to_string().len() + headers
}
