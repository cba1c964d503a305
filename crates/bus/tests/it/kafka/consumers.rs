//! From Kafka to handlers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferroflow_bus::kafka::{Delivery, Failure, Handler, KafkaConfig, redrive};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::FutureRecord;

use super::scene::{Received, RecordingHandler, Scene, distinct_sequences, eventually, record_of};

fn recording_handler() -> (Received, RecordingHandler) {
    let received = Received::default();
    let handler = RecordingHandler {
        received: Arc::clone(&received),
        time: Duration::ZERO,
    };
    (received, handler)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_events_come_once_and_in_order_more_of_them_than_a_queue_holds() {
    let Some(scene) = Scene::open() else { return };
    // Two keys, so that a queue of a thousand is full and its partition pauses.
    let events = scene.events(&["a", "b"], 4000);
    scene.relay(&events).await;
    let (received, mut handler) = recording_handler();
    handler.time = Duration::from_micros(200);

    let running = scene.start("all", handler);
    eventually("not all came", || received.lock().unwrap().len() >= 8000).await;
    running.end().await;

    let received = received.lock().unwrap();
    assert_eq!(received.len(), 8000);
    for key in ["a", "b"] {
        assert_eq!(
            distinct_sequences(&received, key),
            (1..=4000).collect::<Vec<_>>()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_commits_what_is_done_so_the_next_one_repeats_nothing() {
    let Some(scene) = Scene::open() else { return };
    scene.relay(&scene.events(&["a", "b", "c"], 200)).await;
    let (received, mut handler) = recording_handler();
    handler.time = Duration::from_millis(2);
    let running = scene.start("stop", handler);
    eventually("nothing came", || received.lock().unwrap().len() > 50).await;
    running.end().await;
    assert!(received.lock().unwrap().len() < 600);

    let running = scene.start(
        "stop",
        RecordingHandler {
            received: Arc::clone(&received),
            time: Duration::ZERO,
        },
    );
    eventually("not all came", || received.lock().unwrap().len() >= 600).await;
    running.end().await;

    let received = received.lock().unwrap();
    let distinct: BTreeSet<_> = received.iter().collect();
    assert_eq!((received.len(), distinct.len()), (600, 600));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_and_a_rebalance_repeats_and_loses_nothing() {
    let Some(scene) = Scene::open() else { return };
    let keys: Vec<String> = (0..24).map(|at| format!("k{at}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let events = scene.events(&keys, 60);
    scene.relay(&events).await;
    let (first, mut handler) = recording_handler();
    handler.time = Duration::from_millis(10);
    let running = scene.start("two", handler);
    eventually("nothing came", || first.lock().unwrap().len() > 20).await;

    let (second, mut handler) = recording_handler();
    handler.time = Duration::from_millis(10);
    let other = scene.start("two", handler);
    eventually("the second got nothing", || {
        !second.lock().unwrap().is_empty()
    })
    .await;
    // Back to one member, while there is still something to do.
    other.end().await;
    let total = || first.lock().unwrap().len() + second.lock().unwrap().len();
    eventually("not all came", || total() >= events.len()).await;
    running.end().await;

    let both: Vec<_> = [first, second]
        .iter()
        .flat_map(|received| received.lock().unwrap().clone())
        .collect();
    let distinct: BTreeSet<_> = both.iter().collect();
    assert_eq!((both.len(), distinct.len()), (events.len(), events.len()));
}

/// Fails for some events, as their sequence says.
struct FailingHandler {
    received: Received,
    attempts: Mutex<Vec<(i64, u32)>>,
}

impl Handler for FailingHandler {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let note = record_of(delivery);
        self.attempts
            .lock()
            .unwrap()
            .push((note.1, delivery.attempt));
        match note.1 {
            2 => Err(Failure::Retry("two is too much".to_owned())),
            3 => Err(Failure::Poison("three is poison".to_owned())),
            4 if delivery.attempt < 2 => Err(Failure::Retry("not yet".to_owned())),
            _ => {
                self.received.lock().unwrap().push(note);
                Ok(())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_as_it_was_and_the_partition_goes_on() {
    let Some(scene) = Scene::open() else { return };
    scene.relay(&scene.events(&["a"], 4)).await;
    let broken = FutureRecord::to(&scene.topic)
        .key("default/a")
        .payload("not JSON")
        .headers(OwnedHeaders::new().insert(Header {
            key: "mine",
            value: Some("kept"),
        }));
    scene.send(broken).await;
    let received = Received::default();
    let handler = Arc::new(FailingHandler {
        received: Arc::clone(&received),
        attempts: Mutex::default(),
    });

    let running = scene.start("poison", Arc::clone(&handler));
    let dead = tokio::task::block_in_place(|| scene.read(&format!("{}.dlq", scene.topic), 3));
    eventually("the partition stands still", || {
        received.lock().unwrap().len() == 2
    })
    .await;
    running.end().await;

    assert_eq!(distinct_sequences(&received.lock().unwrap(), "a"), [1, 4]);
    assert_eq!(
        *handler.attempts.lock().unwrap(),
        [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1), (4, 1), (4, 2)]
    );
    let headers: Vec<Vec<String>> = dead
        .iter()
        .map(|message| {
            let headers = message.headers().unwrap();
            let text = |name: &str| {
                let found = headers.iter().find(|header| header.key == name);
                let value = found.and_then(|header| header.value).unwrap_or_default();
                String::from_utf8_lossy(value).into_owned()
            };
            let names = [
                "dlq-reason",
                "dlq-attempts",
                "dlq-topic",
                "dlq-offset",
                "ce_sequence",
                "mine",
            ];
            assert!(!text("dlq-partition").is_empty());
            names.iter().map(|name| text(name)).collect()
        })
        .collect();
    let topic = scene.topic.as_str();
    assert_eq!(headers[0], ["two is too much", "3", topic, "1", "2", ""]);
    assert_eq!(headers[1], ["three is poison", "1", topic, "2", "3", ""]);
    assert_eq!(
        headers[2],
        [
            "not a CloudEvent: there is no header ce_specversion",
            "0",
            topic,
            "4",
            "",
            "kept"
        ]
    );
    assert_eq!(dead[0].key(), Some(&b"default/a"[..]));
    assert_eq!(dead[0].payload(), Some(&b"{\"n\":2}"[..]));
    assert_eq!(dead[2].payload(), Some(&b"not JSON"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_are_sent_back_are_handled_once_their_cause_is_fixed() {
    let Some(scene) = Scene::open() else { return };
    scene.relay(&scene.events(&["a"], 4)).await;
    let handler = FailingHandler {
        received: Received::default(),
        attempts: Mutex::default(),
    };
    let running = scene.start("mended", handler);
    let dlq = format!("{}.dlq", scene.topic);
    tokio::task::block_in_place(|| scene.read(&dlq, 2));
    running.end().await;

    let back = redrive(&scene.config, &dlq).await.unwrap();
    assert_eq!(back, 2);
    assert_eq!(redrive(&scene.config, &dlq).await.unwrap(), 0);

    let (received, handler) = recording_handler();
    let running = scene.start("mended", handler);
    eventually("not both came", || received.lock().unwrap().len() >= 2).await;
    running.end().await;
    let received = received.lock().unwrap();
    assert_eq!(
        distinct_sequences(&received, "a")
            .iter()
            .collect::<BTreeSet<_>>(),
        BTreeSet::from([&2, &3])
    );
    let all = tokio::task::block_in_place(|| scene.read(&scene.topic, 6));
    let headers = all
        .iter()
        .flat_map(|message| message.headers().unwrap().iter());
    assert!(
        headers
            .into_iter()
            .all(|header| !header.key.starts_with("dlq-"))
    );
}

/// Says that what it needs is away, some times.
struct UnavailableHandler {
    left: Mutex<u32>,
    received: Received,
}

impl Handler for UnavailableHandler {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        let mut left = self.left.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            return Err(Failure::Unavailable("the database is away".to_owned()));
        }
        self.received.lock().unwrap().push(record_of(delivery));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_is_waited_for_longer_than_there_are_attempts() {
    let Some(scene) = Scene::open() else { return };
    scene.relay(&scene.events(&["a"], 2)).await;
    let received = Received::default();
    let handler = UnavailableHandler {
        left: Mutex::new(6),
        received: Arc::clone(&received),
    };

    let running = scene.start("away", handler);
    eventually("not all came", || received.lock().unwrap().len() == 2).await;
    running.end().await;

    assert_eq!(distinct_sequences(&received.lock().unwrap(), "a"), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_brokers_are_away_stops_when_it_is_asked_to() {
    if Scene::open().is_none() {
        return;
    }
    let scene = Scene::with(KafkaConfig {
        // Nobody listens there.
        brokers: Some("127.0.0.1:1".to_owned()),
        ..KafkaConfig::default()
    });
    let (_, handler) = recording_handler();

    let running = scene.start("nobody", handler);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    running.end().await;

    assert!(begun.elapsed() < Duration::from_secs(20));
}
