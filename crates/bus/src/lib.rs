//! The bus that carries CloudEvents from services to whoever listens.
//!
//! ```text
//! transaction ──► outbox ──► Relay ──► Bus ──► watchers (EventService, SSE)
//! ```
//!
//! [`Relay`] moves events at least once and in order per key; [`Bus`] keeps each id once.
//! Any number of services feed one log. Positions are given under one lock and become visible in
//! their order, so a reader that keeps its position misses nothing. Does not interpret events.
#![warn(missing_docs)]

mod embedded;
mod filter;
#[cfg(feature = "kafka")]
pub mod kafka;
mod relay;

use ferroflow_db::lead::Leadership;
use ferroflow_db::{Db, DbError};
use ferroflow_types::{CloudEvent, Timestamp};

pub use embedded::EmbeddedBus;
pub use filter::EventFilter;
pub use relay::Relay;

/// A bus. Kafka is fed from it ([`kafka`]); those who watch read it here in either case.
#[derive(Clone)]
pub enum Bus {
    /// A log in a database of its own.
    Embedded(EmbeddedBus),
}

/// A part of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The events that match, with their positions, oldest first.
    pub events: Vec<(i64, CloudEvent)>,
    /// The log was read up to here, matches or not.
    pub scanned: i64,
}

/// What a relay has not moved yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// How many events.
    pub events: u64,
    /// When the oldest of them happened.
    pub oldest: Option<Timestamp>,
}

impl Bus {
    /// The bus in the database at `url`, which this process alone writes if it is SQLite.
    pub async fn embedded(url: &str) -> Result<Self, DbError> {
        let db = Db::open(url, embedded::MIGRATIONS).await?;
        Ok(Self::Embedded(EmbeddedBus::open(db).await?))
    }

    /// The bus in the database at `url`, which other processes write as well.
    pub async fn shared(url: &str) -> Result<Self, DbError> {
        let db = Db::open(url, embedded::MIGRATIONS).await?;
        Ok(Self::Embedded(EmbeddedBus::shared(db).await?))
    }

    /// The database that the log is in.
    pub fn db(&self) -> &Db {
        match self {
            Self::Embedded(bus) => bus.db(),
        }
    }

    /// Appends events; those whose id is in the log already are left out.
    pub async fn publish(&self, events: &[CloudEvent]) -> Result<(), DbError> {
        match self {
            Self::Embedded(bus) => bus.publish(events, None).await,
        }
    }

    /// As [`Bus::publish`], if the lease is held; it is one of the log's database.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when somebody else holds it by now: nothing is published.
    pub async fn publish_as(
        &self,
        lead: &Leadership,
        events: &[CloudEvent],
    ) -> Result<(), DbError> {
        match self {
            Self::Embedded(bus) => bus.publish(events, Some(lead)).await,
        }
    }

    /// Events after `position` that match, out of at most `limit` that are looked at.
    pub async fn read_after(
        &self,
        position: i64,
        filter: &EventFilter,
        limit: i64,
    ) -> Result<Batch, DbError> {
        match self {
            Self::Embedded(bus) => bus.read_after(position, filter, limit).await,
        }
    }

    /// Returns once there is something after `position`.
    pub async fn wait_after(&self, position: i64) {
        match self {
            Self::Embedded(bus) => bus.wait_after(position).await,
        }
    }

    /// The position of the oldest event that is kept, 0 for an empty log.
    pub async fn oldest(&self) -> Result<i64, DbError> {
        match self {
            Self::Embedded(bus) => bus.oldest().await,
        }
    }

    /// The texts of events after `position`, for a relay.
    #[cfg(feature = "kafka")]
    async fn texts_after(
        &self,
        position: i64,
        limit: usize,
    ) -> Result<Vec<(i64, String)>, DbError> {
        match self {
            Self::Embedded(bus) => bus.texts_after(position, limit).await,
        }
    }

    /// What the relay of that name has not moved yet.
    pub async fn backlog(&self, relay: &str) -> Result<Backlog, DbError> {
        match self {
            Self::Embedded(bus) => bus.backlog(relay).await,
        }
    }

    /// Forgets events from before `before_millis`, some thousands at most; how many there were.
    /// Where a relay is named, events that it has not moved stay, however old they are.
    pub async fn prune(&self, before_millis: i64, relay: Option<&str>) -> Result<u64, DbError> {
        match self {
            Self::Embedded(bus) => bus.prune(before_millis, relay).await,
        }
    }
}
