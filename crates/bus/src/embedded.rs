//! The log in a database.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ferroflow_db::lead::Leadership;
use ferroflow_db::signal::Topic;
use ferroflow_db::{Db, DbError, Migration, Read as _, Sql};
use ferroflow_types::{CloudEvent, Timestamp};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tokio::sync::watch;

use crate::{Backlog, Batch, EventFilter};

pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "log",
        sql: Sql::Both(include_str!("../migrations/0001_log.sql")),
    },
    Migration {
        version: 2,
        name: "relay_cursors",
        sql: Sql::Both(include_str!("../migrations/0002_relay_cursors.sql")),
    },
    Migration {
        version: 3,
        name: "log_head",
        sql: Sql::Both(include_str!("../migrations/0003_log_head.sql")),
    },
];

/// Events that one pruning forgets at most, so that it never holds the writer for long.
const PRUNE_MAX: i64 = 5_000;

/// There is something new in the log.
const EVENTS: Topic = Topic::new("events");

/// How often the log is looked at without a signal: where others write into it, a signal may be
/// lost, and SQLite has none between processes.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
const FILE_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The newest position. A release without `log_head` may write beside this one while replicas are
/// replaced, so what is in the log counts as well.
const HEAD: &str = "SELECT COALESCE(MAX(position), 0) AS p FROM \
    (SELECT position FROM log_head UNION ALL SELECT MAX(position) FROM event_log) AS heads";

// A write and not a read, because it locks the row on PostgreSQL.
const LOCK_HEAD: &str = "UPDATE log_head SET position = position WHERE id = 1";

const SET_HEAD: &str = "UPDATE log_head SET position = $1 WHERE id = 1";

const INSERT: &str = "INSERT INTO event_log (position, id, at, event) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (id) DO NOTHING";

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
        let head = position(&mut tx, HEAD).await?;
        drop(tx);
        let head = Arc::new(watch::Sender::new(head));
        if db.is_postgres() {
            tokio::spawn(poll_head(db.clone(), Arc::downgrade(&head), POLL_INTERVAL));
        }
        Ok(Self { db, head })
    }

    /// A bus that other processes write into.
    pub(crate) async fn shared(db: Db) -> Result<Self, DbError> {
        let bus = Self::open(db).await?;
        if !bus.db.is_postgres() {
            let head = Arc::downgrade(&bus.head);
            tokio::spawn(poll_head(bus.db.clone(), head, FILE_POLL_INTERVAL));
        }
        Ok(bus)
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) async fn publish(
        &self,
        events: &[CloudEvent],
        lead: Option<&Leadership>,
    ) -> Result<(), DbError> {
        let mut tx = self.db.begin_write().await?;
        if let Some(lead) = lead {
            lead.guard(&mut tx).await?;
        }
        // Locked before the position is read: two that publish would else give the same one, or a
        // reader would pass an event that becomes visible later.
        sqlx::query(LOCK_HEAD).execute(tx.conn()).await?;
        let mut next = position(&mut tx, HEAD).await?;
        for event in events {
            let text = serde_json::to_string(event)
                .map_err(|error| DbError::inconsistent("event_log", "event", error.to_string()))?;
            // Only a known id is left out. A release without `log_head` does not take the lock and may
            // give the same position: that is an error, and the relay tries again.
            let result = sqlx::query(INSERT)
                .bind(next + 1)
                .bind(event.id.to_string())
                .bind(event.time.millis())
                .bind(text)
                .execute(tx.conn())
                .await?;
            next += i64::from(result.rows_affected() == 1);
        }
        let set = sqlx::query(SET_HEAD).bind(next);
        ferroflow_db::ensure_one(&set.execute(tx.conn()).await?, "log_head")?;
        tx.signal(EVENTS);
        tx.commit().await?;
        // Those who wait in this process need no signal.
        advance(&self.head, next);
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
            // `scanned` moves on for events that do not match too, so that the reader does not get them
            // again.
            if filter.matches(&event) {
                batch.events.push((position, event));
            }
        }
        Ok(batch)
    }

    /// The texts of events after `after` as they are kept, with their positions.
    #[cfg(feature = "kafka")]
    pub(crate) async fn texts_after(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, String)>, DbError> {
        let mut tx = self.db.begin_read().await?;
        let rows = sqlx::query(
            "SELECT position, event FROM event_log WHERE position > $1 ORDER BY position LIMIT $2",
        )
        .bind(after)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(tx.conn())
        .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("position")?, row.try_get("event")?)))
            .collect()
    }

    pub(crate) async fn wait_after(&self, position: i64) {
        let mut head = self.head.subscribe();
        // Fails only when the bus is gone, and then nobody waits for it.
        let _closed = head.wait_for(|head| *head > position).await.is_err();
    }

    pub(crate) async fn oldest(&self) -> Result<i64, DbError> {
        let mut tx = self.db.begin_read().await?;
        position(
            &mut tx,
            "SELECT COALESCE(MIN(position), 0) AS p FROM event_log",
        )
        .await
    }

    pub(crate) async fn backlog(&self, relay: &str) -> Result<Backlog, DbError> {
        let mut tx = self.db.begin_read().await?;
        let relayed = relay_position(&mut tx, relay).await?;
        let head = position(&mut tx, HEAD).await?;
        let oldest =
            sqlx::query("SELECT at FROM event_log WHERE position > $1 ORDER BY position LIMIT 1")
                .bind(relayed)
                .fetch_optional(tx.conn())
                .await?;
        let oldest = oldest.map(|row| row.try_get("at")).transpose()?;
        Ok(Backlog {
            // Positions have no gaps but those of pruning, which are at the old end.
            events: u64::try_from(head.saturating_sub(relayed)).unwrap_or(0),
            oldest: oldest.map(Timestamp::from_millis),
        })
    }

    pub(crate) async fn prune(
        &self,
        before_millis: i64,
        relay: Option<&str>,
    ) -> Result<u64, DbError> {
        let mut tx = self.db.begin_write().await?;
        // Read in the transaction that deletes. The position only rises, so what is deleted has been
        // moved.
        let relayed = match relay {
            Some(relay) => relay_position(&mut tx, relay).await?,
            None => i64::MAX,
        };
        // The newest event stays: releases without `log_head` give positions by it.
        let result = sqlx::query(
            "DELETE FROM event_log WHERE position IN (SELECT position FROM event_log \
             WHERE at < $1 AND position <= $2 \
             AND position < (SELECT MAX(position) FROM event_log) \
             ORDER BY position LIMIT $3)",
        )
        .bind(before_millis)
        .bind(relayed)
        .bind(PRUNE_MAX)
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(result.rows_affected())
    }
}

/// Wakes those who wait for a position up to `next`.
fn advance(head: &watch::Sender<i64>, next: i64) {
    head.send_if_modified(|head| {
        let newer = *head < next;
        *head = next.max(*head);
        newer
    });
}

/// Looks for what other processes write, at their signals and once in a while.
async fn poll_head(db: Db, head: Weak<watch::Sender<i64>>, period: Duration) {
    let mut events = db.signals().subscribe(EVENTS);
    loop {
        tokio::select! {
            () = events.changed() => {}
            () = tokio::time::sleep(period) => {}
        }
        let newest = async {
            let mut tx = db.begin_read().await?;
            position(&mut tx, HEAD).await
        };
        let newest = newest.await;
        // The bus is gone, and with it everybody who waits.
        let Some(head) = head.upgrade() else {
            return;
        };
        match newest {
            Ok(newest) => advance(&head, newest),
            Err(error) => tracing::debug!(%error, "the event log cannot be looked at"),
        }
    }
}

/// How far a relay has come; one that never stored a position has moved nothing.
pub(crate) async fn relay_position(
    tx: &mut impl ferroflow_db::Read,
    relay: &str,
) -> Result<i64, DbError> {
    let row = sqlx::query("SELECT position FROM relay_cursors WHERE name = $1")
        .bind(relay)
        .fetch_optional(tx.conn())
        .await?;
    Ok(row
        .map(|row| row.try_get("position"))
        .transpose()?
        .unwrap_or(0))
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
