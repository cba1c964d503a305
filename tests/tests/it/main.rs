//! The built platform (`FERROFLOW_BIN`) as a whole: what no service alone can show.
//!
//! | module | holds |
//! |---|---|
//! | `deploy` | the same is said of an installation wherever it is said |
//! | `events` | event streams, from the log of all services |
//! | `tenants` | callers that are limited to a namespace, over every RPC |
//! | `trace` | a trace that goes from a request into a command |
//! | `upgrade` | what the former version left is taken over |
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and says what it skips"
)]

mod deploy;
mod events;
mod tenants;
mod trace;
mod upgrade;
