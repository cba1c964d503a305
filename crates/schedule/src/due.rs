//! Which due times are run now: catch-up, concurrency, and a clock that may jump.

use ferroflow_types::Timestamp;

use crate::schedule::Schedule;

/// How many at once, and what becomes of missed times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs that may be under way at once.
    pub max_concurrency: i64,
    /// Of several missed times the newest only is run.
    pub no_catchup: bool,
}

/// How far a recurring run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// All due times up to here are dealt with. It never goes back, whatever the clock does.
    pub cursor: Timestamp,
    /// Runs that were made.
    pub fired: i64,
}

/// A due time that is run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueTime {
    /// When it was due.
    pub at: Timestamp,
    /// The number of its run, from 1.
    pub index: i64,
}

/// What is done in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Runs to be made, oldest first.
    pub due: Vec<DueTime>,
    /// Where this leads to.
    pub progress: Progress,
    /// The first due time after that, also one that has come and waits for a slot.
    pub next: Option<Timestamp>,
}

/// Decides what is run at `now`, with `active` runs under way.
pub fn advance(
    schedule: &Schedule,
    limits: Limits,
    progress: Progress,
    now: Timestamp,
    active: i64,
) -> Advance {
    let mut free_slots = limits.max_concurrency.saturating_sub(active);
    let mut progress = progress;
    let mut due = Vec::new();
    while free_slots > 0 {
        // The cursor goes to the newest time at once, and so past those that are not caught up.
        let found = if limits.no_catchup {
            schedule.newest(progress.cursor, now)
        } else {
            schedule
                .next_after(progress.cursor)
                .filter(|next| *next <= now)
        };
        let Some(at) = found else { break };
        progress.cursor = at;
        progress.fired += 1;
        let index = progress.fired;
        due.push(DueTime { at, index });
        free_slots -= 1;
    }
    Advance {
        due,
        progress,
        next: schedule.next_after(progress.cursor),
    }
}
