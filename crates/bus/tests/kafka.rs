//! Relay and consumers over real brokers (`FERROFLOW_TEST_KAFKA`).
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

#[path = "kafka/scene.rs"]
mod scene;

#[path = "kafka/consumers.rs"]
mod consumers;
#[path = "kafka/faults.rs"]
mod faults;
#[path = "kafka/relays.rs"]
mod relays;
#[cfg(feature = "kafka-tls")]
#[path = "kafka/tls.rs"]
mod tls;
