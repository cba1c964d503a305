//! Moves events from a service's outbox to the bus.
//!
//! At least once: a crash between publishing and forgetting repeats events, and the bus leaves out
//! what it has. In order per key: the outbox is read in the order of each key.

use ferroflow_db::lead::Leadership;
use ferroflow_db::signal::{OUTBOX, Subscription};
use ferroflow_db::{Db, DbError, outbox};

use crate::Bus;

/// Events moved at once.
const BATCH: i64 = 500;

/// The relay of one database.
pub struct Relay {
    db: Db,
    bus: Bus,
    filled: Subscription,
}

impl Relay {
    /// A relay from `db`'s outbox to `bus`.
    pub fn new(db: Db, bus: Bus) -> Self {
        let filled = db.signals().subscribe(OUTBOX);
        Self { db, bus, filled }
    }

    /// Moves one batch; how many events it was. The order of a key is kept by one relay at a time,
    /// whose lease is in the log's database: what a predecessor has read and not yet published
    /// comes too late.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when another relay works by now.
    pub async fn tick(&self, lead: &Leadership) -> Result<usize, DbError> {
        let events = outbox::waiting(&self.db, BATCH).await?;
        if !events.is_empty() {
            // In this order: a crash in between leaves the events in the outbox, and the bus knows
            // their ids.
            self.bus.publish_as(lead, &events).await?;
            outbox::remove(&self.db, &events).await?;
        }
        Ok(events.len())
    }

    /// Returns when there may be something to move.
    pub async fn wait(&mut self) {
        self.filled.changed().await;
    }
}
