//! Two services in processes of their own feed one log, and one of them is killed again and again.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferroflow_bus::{Bus, EventFilter, Relay};
use ferroflow_db::lead::{Leadership, run_as_leader};
use ferroflow_db::testing::each_db;
use ferroflow_db::{Db, DbError, Migration, Read as _, Sql};
use ferroflow_types::id::EventId;
use ferroflow_types::{CloudEvent, Timestamp};
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events of each service.
const EVENTS: i64 = 10_000;

/// Events of one transaction.
const BATCH: i64 = 50;

/// Objects of each service, whose events keep their order.
const KEYS: i64 = 20;

const LIMIT: Duration = Duration::from_mins(3);

/// What a service keeps beside its outbox: how many events it has published.
const SERVICE: &[Migration] = &[Migration {
    version: 1,
    name: "told",
    sql: Sql::Both(
        "CREATE TABLE told (id BIGINT PRIMARY KEY, events BIGINT NOT NULL); \
          INSERT INTO told (id, events) VALUES (1, 0);",
    ),
}];

/// What the duties of a log leave behind: what was fed to elsewhere, and who did what when.
const DUTIES: &[Migration] = &[Migration {
    version: 1,
    name: "duties",
    sql: Sql::Both(
        "CREATE TABLE fed (at BIGINT PRIMARY KEY, position BIGINT NOT NULL); \
          CREATE TABLE ticks (at BIGINT PRIMARY KEY, holder TEXT NOT NULL);",
    ),
}];

/// The variables that a service is started with.
const NAME: &str = "FERROFLOW_TEST_SERVICE";
const OUTBOX: &str = "FERROFLOW_TEST_OUTBOX";
const LOG: &str = "FERROFLOW_TEST_LOG";
const SINK: &str = "FERROFLOW_TEST_SINK";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// The service itself, started by the test below.
#[test]
#[ignore = "a process of the test of two services"]
fn service() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(serve());
}

async fn serve() {
    let name: &'static str = variable(NAME).leak();
    let db = Db::open(&variable(OUTBOX), SERVICE).await.unwrap();
    let bus = Bus::shared(&variable(LOG)).await.unwrap();
    let sink = Db::open(&variable(SINK), DUTIES).await.unwrap();
    let stop = CancellationToken::new();
    let relay = Relay::new(db.clone(), bus.clone());
    let holder = format!("instance/{name}");
    let log = bus.db().clone();
    let relaying = run_as_leader(log.clone(), name, &holder, stop.clone(), async |lead| {
        relay_on(&relay, &lead).await
    });
    let feeding = run_as_leader(log.clone(), "feed", &holder, stop.clone(), async |lead| {
        feed(&bus, &sink, &lead).await
    });
    let watching = run_as_leader(log, "retention", &holder, stop, async |lead| {
        retain(&bus, &sink, &lead, &holder).await
    });
    let (published, ..) = tokio::join!(publish_events(&db, name), relaying, feeding, watching);
    published.unwrap();
}

async fn relay_on(relay: &Relay, lead: &Leadership) -> Result<(), DbError> {
    loop {
        if relay.tick(lead).await? == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Publishes events in transactions of their own, from where the last process of this service was.
async fn publish_events(db: &Db, name: &str) -> Result<(), DbError> {
    loop {
        let mut tx = db.begin_write().await?;
        let row = sqlx::query("UPDATE told SET events = events + $1 WHERE id = 1 RETURNING events")
            .bind(BATCH)
            .fetch_one(tx.conn())
            .await?;
        let last: i64 = row.try_get("events")?;
        if last > EVENTS {
            return Ok(());
        }
        for number in last - BATCH..last {
            tx.publish(&event(name, number)).await?;
        }
        tx.commit().await?;
    }
}

fn event(name: &str, number: i64) -> CloudEvent {
    let key = format!("default/{name}-{}", number % KEYS);
    let sequence = number / KEYS + 1;
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{key}/{sequence}").as_bytes());
    CloudEvent {
        id: EventId::new(id),
        topic: format!("ferroflow.{name}.v1"),
        event_type: "ai.ferroflow.thing.changed".to_owned(),
        source: format!("//ferroflow/{name}"),
        subject: format!("namespaces/{key}"),
        namespace: "default".to_owned(),
        key,
        sequence,
        time: Timestamp::from_millis(number),
        traceparent: None,
        authtype: None,
        authid: None,
        data: serde_json::json!({"n": number}),
    }
}

/// Copies positions to elsewhere, as the way to Kafka does, each once.
async fn feed(bus: &Bus, sink: &Db, lead: &Leadership) -> Result<(), DbError> {
    loop {
        let mut tx = sink.begin_read().await?;
        let query = "SELECT COALESCE(MAX(at), 0) AS n, COALESCE(MAX(position), 0) AS p FROM fed";
        let row = sqlx::query(query).fetch_one(tx.conn()).await?;
        let (count, after): (i64, i64) = (row.try_get("n")?, row.try_get("p")?);
        drop(tx);
        let batch = bus.read_after(after, &EventFilter::default(), 500).await?;
        if batch.events.is_empty() {
            bus.wait_after(after).await;
            continue;
        }
        // Two feeds at once would give one number twice, which fails.
        let mut held = bus.db().begin_write().await?;
        lead.guard(&mut held).await?;
        let mut tx = sink.begin_write().await?;
        for (at, (position, _)) in (count + 1..).zip(batch.events) {
            sqlx::query("INSERT INTO fed (at, position) VALUES ($1, $2)")
                .bind(at)
                .bind(position)
                .execute(tx.conn())
                .await?;
        }
        tx.commit().await?;
        held.commit().await?;
    }
}

/// Notes who looks after old events, as often as it is done.
async fn retain(bus: &Bus, sink: &Db, lead: &Leadership, holder: &str) -> Result<(), DbError> {
    loop {
        let mut held = bus.db().begin_write().await?;
        lead.guard(&mut held).await?;
        let mut tx = sink.begin_write().await?;
        sqlx::query("INSERT INTO ticks (at, holder) SELECT COUNT(*) + 1, $1 FROM ticks")
            .bind(holder)
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
        held.commit().await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The URLs of the four databases, and what ends with the test.
struct Scene {
    log: String,
    sink: String,
    outboxes: [String; 2],
}

const NAMES: [&str; 2] = ["trains", "ships"];

fn start(scene: &Scene, which: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "services::service", "--ignored", "--nocapture"])
        .env(NAME, NAMES[which])
        .env(OUTBOX, &scene.outboxes[which])
        .env(LOG, &scene.log)
        .env(SINK, &scene.sink)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn count(sink: &Db) -> i64 {
    let mut tx = sink.begin_read().await.unwrap();
    let query = "SELECT COUNT(*) AS n FROM fed";
    let row = sqlx::query(query).fetch_one(tx.conn()).await.unwrap();
    row.try_get("n").unwrap()
}

/// Runs both to their ends; how often one was killed.
async fn run(scene: &Scene, sink: &Db) -> u32 {
    let mut children = [start(scene, 0), start(scene, 1)];
    let begun = Instant::now();
    let (mut kills, mut random) = (0, u64::from(std::process::id()));
    while count(sink).await < 2 * EVENTS {
        assert!(begun.elapsed() < LIMIT, "{} were fed", count(sink).await);
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        tokio::time::sleep(Duration::from_millis(100 + (random >> 33) % 600)).await;
        for (which, child) in children.iter_mut().enumerate() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "service {which} ended: {ended:?}");
        }
        if kills < 8 {
            let which = usize::try_from((random >> 40) % 2).unwrap();
            children[which].kill().unwrap();
            children[which].wait().unwrap();
            children[which] = start(scene, which);
            kills += 1;
        }
    }
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    kills
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_feed_one_log_and_its_duties_are_done_once() {
    let logs = each_db(&[]).await;
    let sinks = each_db(DUTIES).await;
    let outboxes = [each_db(SERVICE).await, each_db(SERVICE).await];
    for (at, (log, sink)) in logs.iter().zip(&sinks).enumerate() {
        let scene = Scene {
            log: log.url.clone(),
            sink: sink.url.clone(),
            outboxes: [outboxes[0][at].url.clone(), outboxes[1][at].url.clone()],
        };
        let begun = Instant::now();
        let kills = run(&scene, &sink.db).await;

        let bus = Bus::shared(&scene.log).await.unwrap();
        let all = bus.read_after(0, &EventFilter::default(), 100_000).await;
        let all = all.unwrap().events;
        assert_eq!(
            all.len(),
            usize::try_from(2 * EVENTS).unwrap(),
            "{}",
            log.kind
        );
        let mut sequences = BTreeMap::<_, Vec<_>>::new();
        for (_, event) in &all {
            let of_key = sequences.entry(event.key.clone()).or_default();
            of_key.push(event.sequence);
        }
        let whole: Vec<_> = (1..=EVENTS / KEYS).collect();
        for (key, of_key) in sequences {
            assert_eq!(of_key, whole, "{}: {key}", log.kind);
        }
        // Every position once and in order: no reader passes one that becomes visible later.
        let positions: Vec<_> = all.iter().map(|(position, _)| *position).collect();
        let (fed, holders) = duties(&sink.db).await;
        assert_eq!(fed, positions, "{}", log.kind);
        assert_eq!(bus.backlog("elsewhere").await.unwrap().events, 20_000);
        println!(
            "{}: {} events of two services in {:.1} s, {kills} kills, {holders} changes of who \
             looks after old events",
            log.kind,
            all.len(),
            begun.elapsed().as_secs_f64()
        );
    }
}

/// What was fed, and how often retention went from one holder to another.
async fn duties(sink: &Db) -> (Vec<i64>, usize) {
    let mut tx = sink.begin_read().await.unwrap();
    let query = sqlx::query("SELECT position FROM fed ORDER BY at");
    let fed = query.fetch_all(tx.conn()).await.unwrap();
    let fed = fed.iter().map(|row| row.try_get("position").unwrap());
    let query = sqlx::query("SELECT holder FROM ticks ORDER BY at");
    let ticks = query.fetch_all(tx.conn()).await.unwrap();
    let ticks: Vec<String> = ticks
        .iter()
        .map(|row| row.try_get("holder").unwrap())
        .collect();
    let changes = ticks.windows(2).filter(|pair| pair[0] != pair[1]).count();
    (fed.collect(), changes)
}
