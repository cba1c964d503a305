//! Relay and consumers over real brokers (`FERROFLOW_TEST_KAFKA`).

mod consumers;
mod faults;
mod relays;
mod scene;
#[cfg(feature = "kafka-tls")]
mod tls;
