//! Environments as the platform makes them: built for real, from PyPI and from indexes of these tests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and says what it skips"
)]

mod environments;
mod indexes;
