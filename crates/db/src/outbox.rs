//! Events that wait for the bus.
//!
//! Order is kept per key by the event's own sequence, not by the order of insertion: with several
//! writers a later insertion may become visible first.

use ferroflow_types::CloudEvent;
use sqlx::Row as _;

use crate::{Db, DbError, Read as _, WriteTx};

pub(crate) async fn insert(tx: &mut WriteTx, event: &CloudEvent) -> Result<(), DbError> {
    let text = serde_json::to_string(event)
        .map_err(|error| DbError::inconsistent("outbox", "event", error.to_string()))?;
    sqlx::query("INSERT INTO outbox (id, topic, key, sequence, event) VALUES ($1, $2, $3, $4, $5)")
        .bind(event.id.to_string())
        .bind(&event.topic)
        .bind(&event.key)
        .bind(event.sequence)
        .bind(text)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Up to `limit` events that wait, in the order of each key.
pub async fn waiting(db: &Db, limit: i64) -> Result<Vec<CloudEvent>, DbError> {
    let mut tx = db.begin_read().await?;
    let rows = sqlx::query("SELECT event FROM outbox ORDER BY key, sequence LIMIT $1")
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
    let decode = |row: &sqlx::any::AnyRow| {
        let text: String = row.try_get("event")?;
        serde_json::from_str(&text)
            .map_err(|error| DbError::inconsistent("outbox", "event", error.to_string()))
    };
    rows.iter().map(decode).collect()
}

/// Forgets events that the bus has.
pub async fn remove(db: &Db, events: &[CloudEvent]) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    for event in events {
        sqlx::query("DELETE FROM outbox WHERE id = $1")
            .bind(event.id.to_string())
            .execute(tx.conn())
            .await?;
    }
    tx.commit().await
}
