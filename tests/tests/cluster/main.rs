//! The built platform on real parts: Kubernetes, Docker, S3, Kafka, PostgreSQL. Whatever is not given
//! is `skipped`; `cargo xtask test --cluster` starts and gives everything.
//!
//! | module | holds |
//! |---|---|
//! | `chart` | the Helm chart: installed, used, upgraded, removed |
//! | `conformance` | the ecosystem's compiled pipelines in pods |
//! | `docker` | the platform over a Docker engine, and an engine that is killed |
//! | `faults` | parts that are killed, slow or away |
//! | `replicas` | several replicas of every service, one of which is killed |
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and says what it skips"
)]

mod chart;
mod conformance;
mod docker;
mod faults;
mod replicas;
