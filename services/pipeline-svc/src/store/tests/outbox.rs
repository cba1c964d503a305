//! Events that wait for a relay.

use ferroflow_db::{Db, Read};
use serde_json::Value;

/// The types of the events that wait for a relay, in their order.
pub(crate) async fn pending_event_types(tx: &mut impl Read) -> Vec<String> {
    let events = sqlx::query_scalar("SELECT event FROM outbox ORDER BY sequence");
    let events: Vec<String> = events.fetch_all(tx.conn()).await.unwrap();
    let kind = |event: String| {
        let event: Value = serde_json::from_str(&event).unwrap();
        event["type"].as_str().unwrap().to_owned()
    };
    events.into_iter().map(kind).collect()
}

/// What a relay does once all events are in the log.
pub(crate) async fn clear_outbox(db: &Db) {
    let mut tx = db.begin_write().await.unwrap();
    let deleted = sqlx::query("DELETE FROM outbox").execute(tx.conn()).await;
    deleted.unwrap();
    tx.commit().await.unwrap();
}
