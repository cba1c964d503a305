//! The log in a database.

use std::sync::Arc;

use ferroflow_db::{Db, DbError, Migration, Read as _};
use ferroflow_types::CloudEvent;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tokio::sync::watch;

use crate::{Batch, EventFilter};

pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "log",
        sql: include_str!("../migrations/0001_log.sql"),
    },
    Migration {
        version: 2,
        name: "relay_cursors",
        sql: include_str!("../migrations/0002_relay_cursors.sql"),
    },
];

/// Events that one pruning forgets at most, so that it never holds the writer for long.
const PRUNE_MAX: i64 = 5_000;

/// The embedded bus.
#[derive(Clone)]
pub struct EmbeddedBus {
    db: Db,
    /// The newest position; those who wait are woken by it.
    head: Arc<watch::Sender<i64>>,
}

impl EmbeddedBus {
    pub(crate) async fn open(db: Db) -> Result<Self, DbError> {
        let mut tx = db.begin_read().await?;
        let head = position(
            &mut tx,
            "SELECT COALESCE(MAX(position), 0) AS p FROM event_log",
        )
        .await?;
        drop(tx);
        Ok(Self {
            db,
            head: Arc::new(watch::Sender::new(head)),
        })
    }

    #[cfg(feature = "kafka")]
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) async fn publish(&self, events: &[CloudEvent]) -> Result<(), DbError> {
        let mut tx = self.db.begin_write().await?;
        // The log may be empty after pruning, but positions must not be given twice.
        let stored = position(
            &mut tx,
            "SELECT COALESCE(MAX(position), 0) AS p FROM event_log",
        )
        .await?;
        let mut next = stored.max(*self.head.borrow());
        for event in events {
            let text = serde_json::to_string(event)
                .map_err(|error| DbError::inconsistent("event_log", "event", error.to_string()))?;
            let done = sqlx::query(
                "INSERT INTO event_log (position, id, at, event) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(next + 1)
            .bind(event.id.to_string())
            .bind(event.time.millis())
            .bind(text)
            .execute(tx.conn())
            .await?;
            next += i64::from(done.rows_affected() == 1);
        }
        tx.commit().await?;
        self.head.send_if_modified(|head| {
            let newer = *head < next;
            *head = next.max(*head);
            newer
        });
        Ok(())
    }

    pub(crate) async fn read_after(
        &self,
        after: i64,
        filter: &EventFilter,
        limit: i64,
    ) -> Result<Batch, DbError> {
        let mut tx = self.db.begin_read().await?;
        let rows = sqlx::query(
            "SELECT position, event FROM event_log WHERE position > $1 ORDER BY position LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
        drop(tx);
        let mut batch = Batch {
            events: Vec::new(),
            scanned: after,
        };
        for row in &rows {
            let (position, event) = decode(row)?;
            batch.scanned = position;
            if filter.matches(&event) {
                batch.events.push((position, event));
            }
        }
        Ok(batch)
    }

    pub(crate) async fn wait_after(&self, position: i64) {
        let mut head = self.head.subscribe();
        // Fails only when the bus is gone, and then nobody waits for it.
        let _gone = head.wait_for(|head| *head > position).await.is_err();
    }

    pub(crate) async fn oldest(&self) -> Result<i64, DbError> {
        let mut tx = self.db.begin_read().await?;
        position(
            &mut tx,
            "SELECT COALESCE(MIN(position), 0) AS p FROM event_log",
        )
        .await
    }

    pub(crate) async fn prune(&self, before_millis: i64) -> Result<u64, DbError> {
        let mut tx = self.db.begin_write().await?;
        // The newest event stays, so that positions go on from it after a restart.
        let done = sqlx::query(
            "DELETE FROM event_log WHERE position IN (SELECT position FROM event_log \
             WHERE at < $1 AND position < (SELECT MAX(position) FROM event_log) \
             ORDER BY position LIMIT $2)",
        )
        .bind(before_millis)
        .bind(PRUNE_MAX)
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }
}

async fn position(tx: &mut impl ferroflow_db::Read, query: &'static str) -> Result<i64, DbError> {
    Ok(sqlx::query(query)
        .fetch_one(tx.conn())
        .await?
        .try_get("p")?)
}

fn decode(row: &AnyRow) -> Result<(i64, CloudEvent), DbError> {
    let text: String = row.try_get("event")?;
    let event = serde_json::from_str(&text)
        .map_err(|error| DbError::inconsistent("event_log", "event", error.to_string()))?;
    Ok((row.try_get("position")?, event))
}
