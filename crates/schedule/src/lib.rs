//! When something that happens again and again is due, and which due times are acted on now. Pure:
//! the moment comes from the caller, and data of time zones come with the program.
//!
//! | module | holds |
//! |---|---|
//! | [`zone`] | time zones by their IANA names |
//! | [`cron`] | cron expressions |
//! | [`schedule`] | due times, one after another |
//! | [`due`] | which of them are run now |
#![warn(missing_docs)]

pub mod cron;
pub mod due;
#[cfg(test)]
mod newest_tests;
#[cfg(test)]
mod oracle;
pub mod schedule;
#[cfg(test)]
mod schedule_tests;
pub mod zone;

use ferroflow_types::Timestamp;

pub use due::{Advance, DueTime, Limits, Progress, advance};
pub use schedule::{Schedule, ScheduleError};
pub use zone::Zone;

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The rule.
    pub when: When,
    /// Due times are after this; the time of creation when it is not given.
    pub start: Option<Timestamp>,
    /// No due time is after this.
    pub end: Option<Timestamp>,
}

/// The rule of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// A cron expression.
    Cron(String),
    /// Seconds between two.
    Periodic(i64),
    /// At its creation and never again.
    Once,
}
