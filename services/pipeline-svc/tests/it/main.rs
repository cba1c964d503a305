//! Pipelines over the built platform (`FERROFLOW_BIN`), asked over HTTP and gRPC as clients ask.
//!
//! | module | holds |
//! |---|---|
//! | `api` | details of KFP's API that clients rely on |
//! | `caching` | what is reused, and that inputs stay what they are |
//! | `cancel` | runs that are stopped or deleted while they run |
//! | `causes` | what is reported of a task that failed |
//! | `conformance` | the ecosystem's compiled pipelines on local processes |
//! | `crash` | `kill -9` at random moments |
//! | `default_experiment` | runs that name no experiment |
//! | `large_values`, `values` | how large values may be, and that they stay exact |
//! | `packages` | pipelines that are fetched by URL |
//! | `recurring` | schedules |
//! | `replicas` | several replicas on PostgreSQL |
//! | `secrets` | that secrets are shown nowhere |
//!
//! What needs PostgreSQL, Docker or Kubernetes says `skipped` where it is not given.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and says what it skips"
)]

mod api;
mod caching;
mod cancel;
mod causes;
mod conformance;
mod crash;
mod default_experiment;
mod large_values;
mod packages;
mod recurring;
mod replicas;
mod secrets;
mod values;
