//! A handler whose effect happens once: what was seen is noted in the effect's own transaction.
//!
//! Kafka delivers at least once: after a crash between effect and commit, after a rebalance, and
//! when a relay repeats its last events. The note makes the repetition find that the work is done.

use std::time::Duration;

use ferroflow_db::{Db, DbError, Migration, Read as _, Sql, WriteTx};
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Clock as _, Timestamp};

use super::consumer::{Delivery, Failure, Handler};
use super::received::ReceivedEvent;

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "seen_events",
    sql: Sql::Both(include_str!(
        "../../migrations/consumer/0001_seen_events.sql"
    )),
}];

/// Notes that are forgotten at once, so that the writer is never held for long.
const PRUNE_MAX: i64 = 5_000;

/// What an event does to a database.
pub trait Effect: Send + Sync + 'static {
    /// Does it, inside the transaction that notes the event. Not called for an event that was seen.
    fn apply(
        &self,
        tx: &mut WriteTx,
        delivery: &Delivery,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A handler that applies an effect once per event.
pub struct IdempotentHandler<E> {
    db: Db,
    consumer: String,
    effect: E,
    /// How long notes are kept.
    retention: Duration,
}

impl<E: Effect> IdempotentHandler<E> {
    /// A handler over `db`; the tables that it needs are made there. `consumer` names whose notes
    /// they are: two effects over one database have two names.
    pub async fn open(db: Db, consumer: impl Into<String>, effect: E) -> Result<Self, DbError> {
        db.add_part("consumer", MIGRATIONS).await?;
        Ok(Self {
            db,
            consumer: consumer.into(),
            effect,
            // Twice the 7 days for which Kafka keeps messages unless it is told otherwise: nothing
            // older can come again.
            retention: Duration::from_hours(14 * 24),
        })
    }

    /// Keeps notes for another time, which must be longer than the topic keeps its messages.
    #[must_use]
    pub fn with_retention(self, retention: Duration) -> Self {
        Self { retention, ..self }
    }

    /// Forgets notes from before `now` less the time that they are kept; how many there were.
    pub async fn prune(&self, now: Timestamp) -> Result<u64, DbError> {
        let retention_millis = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let mut forgotten = 0;
        loop {
            let mut tx = self.db.begin_write().await?;
            let result = sqlx::query(
                "DELETE FROM seen_events WHERE consumer = $1 AND (source, id) IN \
                 (SELECT source, id FROM seen_events WHERE consumer = $1 AND at < $2 LIMIT $3)",
            )
            .bind(&self.consumer)
            .bind(now.millis().saturating_sub(retention_millis))
            .bind(PRUNE_MAX)
            .execute(tx.conn())
            .await?;
            tx.commit().await?;
            forgotten += result.rows_affected();
            if result.rows_affected() == 0 {
                return Ok(forgotten);
            }
        }
    }

    /// Notes the event; whether it is the first time.
    async fn record(&self, tx: &mut WriteTx, event: &ReceivedEvent) -> Result<bool, DbError> {
        let result = sqlx::query(
            "INSERT INTO seen_events (consumer, source, id, at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (consumer, source, id) DO NOTHING",
        )
        .bind(&self.consumer)
        .bind(&event.source)
        .bind(&event.id)
        .bind(SystemClock.now().millis())
        .execute(tx.conn())
        .await?;
        Ok(result.rows_affected() == 1)
    }
}

impl<E: Effect> Handler for IdempotentHandler<E> {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let mut tx = self.db.begin_write().await.map_err(failure)?;
        if self
            .record(&mut tx, &delivery.event)
            .await
            .map_err(failure)?
        {
            // Where it fails, the transaction is dropped and the note with it: the next attempt finds
            // neither.
            self.effect.apply(&mut tx, delivery).await?;
            tx.commit().await.map_err(failure)?;
        }
        Ok(())
    }

    async fn maintain(&self) -> Result<(), Failure> {
        self.prune(SystemClock.now())
            .await
            .map(drop)
            .map_err(failure)
    }
}

/// A database that is away is no fault of the event.
fn failure(error: DbError) -> Failure {
    let reason = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    match error {
        DbError::Unavailable(_) => Failure::Unavailable(reason),
        _ => Failure::Retry(reason),
    }
}
