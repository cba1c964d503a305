//! Killed consumers, brokers that go and come back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferroflow_bus::kafka::idempotent::{Effect, IdempotentHandler};
use ferroflow_bus::kafka::{Delivery, Failure, Handler, KafkaConfig, KafkaRelay};
use ferroflow_db::testing::each_db;
use ferroflow_db::{Db, Migration, Read as _, Sql, WriteTx};
use ferroflow_testkit::parts::KilledPart;
use sqlx::Row as _;

use super::scene::{
    LIMIT, Received, RecordingHandler, Scene, distinct_sequences, eventually, record_of,
};

const EVENTS: i64 = 40;

/// The event after whose effect the child stops, so that it is killed before it commits.
const STOP_AT: i64 = 10;

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "effects",
    sql: Sql::Both("CREATE TABLE effects (n BIGINT NOT NULL);"),
}];

/// An effect that would be seen twice if it happened twice.
struct CountingEffect(Arc<AtomicUsize>);

impl Effect for CountingEffect {
    async fn apply(&self, tx: &mut WriteTx, delivery: &Delivery) -> Result<(), Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        sqlx::query("INSERT INTO effects (n) VALUES ($1)")
            .bind(record_of(delivery).1)
            .execute(tx.conn())
            .await
            .map(drop)
            .map_err(|error| Failure::Retry(error.to_string()))
    }
}

async fn effects(db: &Db) -> Vec<i64> {
    let mut tx = db.begin_read().await.unwrap();
    let rows = sqlx::query("SELECT n FROM effects ORDER BY n")
        .fetch_all(tx.conn())
        .await
        .unwrap();
    rows.iter().map(|row| row.try_get("n").unwrap()).collect()
}

/// Handles as the other does, then stops for ever where the parent waits for it.
struct StoppingHandler {
    once: IdempotentHandler<CountingEffect>,
    file: PathBuf,
}

impl Handler for StoppingHandler {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        self.once.handle(delivery).await?;
        if record_of(delivery).1 == STOP_AT {
            std::fs::write(&self.file, "").unwrap();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("FERROFLOW_TEST_CHILD_{name}")).ok()
}

/// Not a test: the consumer that the next test kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test that kills it"]
async fn child() {
    let (Some(url), Some(topic), Some(file)) =
        (variable("DB"), variable("TOPIC"), variable("FILE"))
    else {
        return;
    };
    let Some(mut scene) = Scene::open() else {
        return;
    };
    scene.topic = topic;
    let db = Db::open(&url, MIGRATIONS).await.unwrap();
    let effect = CountingEffect(Arc::default());
    let handler = StoppingHandler {
        once: IdempotentHandler::open(db, "test", effect).await.unwrap(),
        file: file.into(),
    };
    scene.start("kill", handler).task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_killed_between_effect_and_commit_has_its_effects_once() {
    let Some(scene) = Scene::open() else { return };
    for found in each_db(MIGRATIONS).await {
        let scene = Scene::with(scene.config.clone());
        scene.relay(&scene.events(&["a"], EVENTS)).await;
        let file = scene.folder.path().join("stopped");
        kill_at(&scene, &found.url, &file).await;
        let before = effects(&found.db).await;
        assert!(
            before.len() >= usize::try_from(STOP_AT).unwrap(),
            "{before:?}"
        );

        let applied = Arc::new(AtomicUsize::new(0));
        let effect = CountingEffect(Arc::clone(&applied));
        let once = IdempotentHandler::open(found.db.clone(), "test", effect)
            .await
            .unwrap();
        let received = Received::default();
        let running = scene.start("kill", EffectAndRecord(once, Arc::clone(&received)));
        eventually("not all came", || {
            let received = received.lock().unwrap();
            received.last().is_some_and(|last| last.1 == EVENTS)
        })
        .await;
        running.end().await;

        assert_eq!(effects(&found.db).await, (1..=EVENTS).collect::<Vec<_>>());
        let (came, applied) = (
            received.lock().unwrap().len(),
            applied.load(Ordering::Relaxed),
        );
        println!(
            "{}: {came} came again or anew, {applied} had an effect",
            found.kind
        );
        // The event whose effect was there came again, and was left out.
        assert!(came > applied, "{came} {applied}");
    }
}

/// Notes what came beside what was done.
struct EffectAndRecord(IdempotentHandler<CountingEffect>, Received);

impl Handler for EffectAndRecord {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        self.0.handle(delivery).await?;
        self.1.lock().unwrap().push(record_of(delivery));
        Ok(())
    }
}

async fn kill_at(scene: &Scene, url: &str, file: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kafka::faults::child",
            "--ignored",
            "--nocapture",
        ])
        .env("FERROFLOW_TEST_CHILD_DB", url)
        .env("FERROFLOW_TEST_CHILD_TOPIC", &scene.topic)
        .env("FERROFLOW_TEST_CHILD_FILE", file)
        .spawn()
        .unwrap();
    eventually("the child does not come to its event", || file.exists()).await;
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn notes_are_forgotten_when_their_time_is_over() {
    for found in each_db(MIGRATIONS).await {
        let effect = CountingEffect(Arc::default());
        let once = IdempotentHandler::open(found.db.clone(), "test", effect)
            .await
            .unwrap();
        let other =
            IdempotentHandler::open(found.db.clone(), "other", CountingEffect(Arc::default()));
        let other = other.await.unwrap();
        let scene = Scene::with(KafkaConfig::default());
        let delivery = delivery(&scene);
        for _ in 0..2 {
            once.handle(&delivery).await.unwrap();
            other.handle(&delivery).await.unwrap();
        }
        // Each of the two had its effect, once.
        assert_eq!(effects(&found.db).await.len(), 2, "{}", found.kind);

        let now = ferroflow_types::Timestamp::from_millis(i64::MAX);
        assert_eq!(once.prune(now).await.unwrap(), 1, "{}", found.kind);
        once.handle(&delivery).await.unwrap();
        assert_eq!(effects(&found.db).await.len(), 3, "{}", found.kind);
    }
}

fn delivery(scene: &Scene) -> Delivery {
    let event = scene.event("a", 1);
    let event = serde_json::json!({
        "specversion": "1.0", "id": event.id.to_string(), "source": event.source,
        "type": event.event_type, "sequence": "1",
    });
    let headers = rdkafka::message::OwnedHeaders::new().insert(rdkafka::message::Header {
        key: "content-type",
        value: Some("application/cloudevents+json"),
    });
    let message = rdkafka::message::OwnedMessage::new(
        Some(event.to_string().into_bytes()),
        None,
        scene.topic.clone(),
        rdkafka::Timestamp::NotAvailable,
        0,
        0,
        Some(headers),
    );
    Delivery {
        topic: scene.topic.clone(),
        partition: 0,
        offset: 0,
        attempt: 1,
        event: ferroflow_bus::kafka::received::ReceivedEvent::of(&message).unwrap(),
    }
}

/// How long brokers are away, `FERROFLOW_TEST_OUTAGE_S`; some seconds by default.
fn outage() -> Duration {
    let given = std::env::var("FERROFLOW_TEST_OUTAGE_S").ok();
    Duration::from_secs(given.map_or(3, |seconds| seconds.parse().unwrap()))
}

/// Moves events as they come, through every failure.
async fn feed(relay: KafkaRelay) {
    loop {
        match relay.tick().await {
            Ok(0) => relay.wait().await,
            Ok(_) => {}
            Err(error) => {
                println!("not yet: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_and_come_back_lose_nothing_and_keep_the_order_of_keys() {
    const COUNT: i64 = 300;
    const KEYS: [&str; 3] = ["a", "b", "c"];
    // Rounds of one event for each key.
    const GOES: u32 = 50;
    const COMES: u32 = 250;
    let Some(scene) = Scene::open() else { return };
    if std::env::var_os("FERROFLOW_TEST_RESTART").is_none() {
        return println!("skipped: FERROFLOW_TEST_RESTART is not set (the brokers are not ours)");
    }
    let outage = outage();
    let bus = scene.bus().await;
    let events = scene.events(&KEYS, COUNT);
    let received = Received::default();
    let consumer = scene.start(
        "restart",
        RecordingHandler {
            received: Arc::clone(&received),
            time: Duration::ZERO,
        },
    );
    let relay = KafkaRelay::open(&scene.config, bus.clone()).await.unwrap();
    let feeding = tokio::spawn(feed(relay));

    let mut away = None;
    for (at, chunk) in (0..).zip(events.chunks(3)) {
        bus.publish(chunk).await.unwrap();
        if at == GOES {
            eventually("nothing came", || received.lock().unwrap().len() > 60).await;
            let killed = tokio::task::spawn_blocking(|| KilledPart::kill("kafka"));
            away = Some(killed.await.unwrap().unwrap());
        }
        if at == COMES {
            let away = away.take();
            tokio::task::spawn_blocking(move || drop(away))
                .await
                .unwrap();
        }
        let pause = match away {
            None => Duration::from_millis(20),
            Some(_) => outage / (COMES - GOES),
        };
        tokio::time::sleep(pause).await;
    }
    let all = || {
        let received = received.lock().unwrap();
        let distinct: BTreeSet<_> = received
            .iter()
            .map(|(key, sequence, _)| (key, sequence))
            .collect();
        distinct.len() == events.len()
    };
    tokio::time::timeout(LIMIT, eventually("not all came", all))
        .await
        .unwrap();
    feeding.abort();
    consumer.end().await;

    let received = received.lock().unwrap();
    println!(
        "{} events, {} deliveries, brokers away for {outage:?}",
        events.len(),
        received.len()
    );
    for key in KEYS {
        assert_eq!(
            distinct_sequences(&received, key),
            (1..=COUNT).collect::<Vec<_>>()
        );
    }
}
