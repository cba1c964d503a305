//! Long-running work: the actors that drive runs, and the replica's sign of life.

mod actor;
mod attempt;
mod caching;
pub(crate) mod heartbeat;
mod import;
pub(crate) mod runs;
mod turn;
