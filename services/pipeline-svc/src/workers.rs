//! Long-running work: the actors that drive runs, the schedules that make them, and the replica's
//! sign of life.

mod actor;
mod attempt;
mod caching;
pub(crate) mod heartbeat;
mod import;
pub(crate) mod runs;
pub(crate) mod schedules;
mod turn;
