//! What the bus and the relay promise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

#[cfg(feature = "kafka")]
mod kafka;
mod log;
mod services;
