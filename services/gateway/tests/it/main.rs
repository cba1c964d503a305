//! The gateway over real sockets, with a service behind it whose contract only these tests have;
//! `platform` has the whole platform behind it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and prints what it measured"
)]

mod conformance;
mod content;
mod echo;
mod generated;
mod health;
mod hop;
mod platform;
mod test_gateway;
