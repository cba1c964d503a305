//! What the bus and the relay promise.

use ferroflow_bus::{Bus, EventFilter, Relay};
use ferroflow_db::lead::run_as_leader;
use ferroflow_db::{Db, DbError};
use ferroflow_types::id::EventId;
use ferroflow_types::{CloudEvent, Timestamp};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

fn event(number: u128, key: &str, sequence: i64) -> CloudEvent {
    CloudEvent {
        id: format!("00000000-0000-0000-0000-{number:012}")
            .parse::<EventId>()
            .unwrap(),
        topic: "ferroflow.pipelines.v1".to_owned(),
        event_type: "ai.ferroflow.run.created".to_owned(),
        source: "//ferroflow/test".to_owned(),
        subject: format!("namespaces/default/runs/{key}"),
        namespace: "default".to_owned(),
        key: key.to_owned(),
        sequence,
        time: Timestamp::from_millis(i64::try_from(number).unwrap()),
        traceparent: None,
        authtype: None,
        authid: None,
        data: serde_json::json!({"n": sequence}),
    }
}

async fn bus(folder: &tempfile::TempDir) -> Bus {
    let url = format!("sqlite:{}", folder.path().join("events.db").display());
    Bus::embedded(&url).await.unwrap()
}

async fn all(bus: &Bus) -> Vec<(i64, CloudEvent)> {
    bus.read_after(0, &EventFilter::default(), 10_000)
        .await
        .unwrap()
        .events
}

#[tokio::test]
async fn an_event_published_twice_is_in_the_log_once() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(&folder).await;

    bus.publish(&[event(1, "a", 1), event(2, "a", 2)])
        .await
        .unwrap();
    bus.publish(&[event(2, "a", 2), event(3, "a", 3)])
        .await
        .unwrap();

    let positions: Vec<_> = all(&bus)
        .await
        .iter()
        .map(|(at, event)| (*at, event.sequence))
        .collect();
    assert_eq!(positions, [(1, 1), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn positions_go_on_after_pruning_and_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let first = bus(&folder).await;
    first
        .publish(&[event(1, "a", 1), event(2, "a", 2)])
        .await
        .unwrap();
    assert_eq!(first.prune(1_000, None).await.unwrap(), 1);
    drop(first);

    let again = bus(&folder).await;
    again.publish(&[event(3, "a", 3)]).await.unwrap();

    assert_eq!(again.oldest().await.unwrap(), 2);
    assert_eq!(all(&again).await.last().unwrap().0, 3);
}

#[tokio::test]
async fn the_relay_keeps_the_order_of_a_key_and_repeats_nothing_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(&folder).await;
    let url = format!("sqlite:{}", folder.path().join("service.db").display());
    let db = Db::open(&url, &[]).await.unwrap();
    let mut tx = db.begin_write().await.unwrap();
    for (number, key, sequence) in [(1, "b", 2), (2, "a", 1), (3, "b", 1)] {
        tx.publish(&event(number, key, sequence)).await.unwrap();
    }
    tx.commit().await.unwrap();
    // As if a crash came after publishing and before forgetting.
    bus.publish(&[event(3, "b", 1)]).await.unwrap();

    let relay = Relay::new(db, bus.clone());
    let stop = CancellationToken::new();
    let relayed = run_as_leader(bus.db().clone(), "relay", "me", stop, async |lead| {
        assert_eq!(relay.tick(&lead).await?, 3);
        assert_eq!(relay.tick(&lead).await?, 0);
        Ok::<(), DbError>(())
    });
    relayed.await.unwrap();

    let log = all(&bus).await;
    let of_b: Vec<_> = log
        .iter()
        .filter(|(_, e)| e.key == "b")
        .map(|(_, e)| e.sequence)
        .collect();
    assert_eq!(log.len(), 3);
    assert_eq!(of_b, [1, 2]);
}

#[tokio::test]
async fn one_who_waits_is_woken_by_the_next_event() {
    let folder = tempfile::tempdir().unwrap();
    let bus = bus(&folder).await;
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.wait_after(0).await }
    });

    bus.publish(&[event(1, "a", 1)]).await.unwrap();

    tokio::time::timeout(std::time::Duration::from_secs(5), waiting)
        .await
        .unwrap()
        .unwrap();
}

proptest! {
    #[test]
    fn a_subject_prefix_ends_at_a_slash(prefix in "[a-z/]{0,8}", subject in "[a-z/]{1,12}") {
        let filter = EventFilter { subject_prefix: prefix.clone(), ..EventFilter::default() };
        let mut found = event(1, "k", 1);
        found.subject.clone_from(&subject);
        let trimmed = prefix.trim_end_matches('/');
        let expected = trimmed.is_empty() || subject == trimmed
            || subject.starts_with(&format!("{trimmed}/"));
        prop_assert_eq!(filter.matches(&found), expected);
    }
}
