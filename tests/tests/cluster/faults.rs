//! Faults on real parts: a cluster, an object store, Kafka, PostgreSQL where `DATABASE_URL` names one.
//!
//! Steps leave a line each on a shared volume, so a step that ran twice is seen; the event log has
//! each transition once.

mod parts;
mod phases;
mod pods;
mod store;

/// The steps of a chain.
const STEPS: [&str; 3] = ["t0", "t1", "t2"];
