//! Long-running work: the actors that drive runs.

mod actor;
mod attempt;
mod import;
pub(crate) mod runs;
mod turn;
