//! Moves events from a service's outbox to the bus.
//!
//! At least once: a crash between publishing and forgetting repeats events, and the bus leaves out
//! what it has. In order per key: the outbox is read in the order of each key.

use ferroflow_db::{Db, DbError, outbox};

use crate::Bus;

/// Events moved at once.
const BATCH: i64 = 500;

/// The relay of one database.
pub struct Relay {
    db: Db,
    bus: Bus,
}

impl Relay {
    /// A relay from `db`'s outbox to `bus`. There must be one per database.
    pub fn new(db: Db, bus: Bus) -> Self {
        Self { db, bus }
    }

    /// Moves one batch; how many events it was.
    pub async fn tick(&self) -> Result<usize, DbError> {
        let events = outbox::waiting(&self.db, BATCH).await?;
        if !events.is_empty() {
            self.bus.publish(&events).await?;
            outbox::remove(&self.db, &events).await?;
        }
        Ok(events.len())
    }

    /// Returns when there may be something to move.
    pub async fn wait(&self) {
        self.db.outbox_signal().notified().await;
    }
}
