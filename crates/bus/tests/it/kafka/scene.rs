//! Topics of a test's own, events in them, and consumers that note what they got.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferroflow_bus::Bus;
use ferroflow_bus::kafka::{
    Consumer, ConsumerOptions, Delivery, Failure, Handler, KafkaConfig, KafkaError, KafkaRelay,
};
use ferroflow_types::id::EventId;
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Clock as _, CloudEvent};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_mins(4);

/// Real brokers and a topic that no other test uses.
pub(crate) struct Scene {
    pub(crate) config: KafkaConfig,
    pub(crate) topic: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Scene {
    /// `None`, with the reason printed, where there are no brokers.
    pub(crate) fn open() -> Option<Self> {
        let Ok(brokers) = std::env::var("FERROFLOW_TEST_KAFKA") else {
            let required = std::env::var("FERROFLOW_TEST_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|one| one == "kafka"),
                "FERROFLOW_TEST_REQUIRE asks for Kafka, and FERROFLOW_TEST_KAFKA names none"
            );
            println!("skipped: FERROFLOW_TEST_KAFKA is not set");
            return None;
        };
        let config = KafkaConfig {
            brokers: Some(brokers),
            partitions: 4,
            ..KafkaConfig::default()
        };
        Some(Self::with(config))
    }

    pub(crate) fn with(config: KafkaConfig) -> Self {
        Self {
            config,
            topic: format!("ferroflow-test-{}", uuid::Uuid::new_v4()),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The log of the test.
    pub(crate) async fn bus(&self) -> Bus {
        let url = format!("sqlite:{}", self.folder.path().join("events.db").display());
        Bus::embedded(&url).await.unwrap()
    }

    pub(crate) fn event(&self, key: &str, sequence: i64) -> CloudEvent {
        CloudEvent {
            id: uuid::Uuid::now_v7().to_string().parse::<EventId>().unwrap(),
            topic: self.topic.clone(),
            event_type: "ai.ferroflow.run.created".to_owned(),
            source: "//ferroflow/test".to_owned(),
            subject: format!("namespaces/default/runs/{key}"),
            namespace: "default".to_owned(),
            key: format!("default/{key}"),
            sequence,
            // Brokers delete what is older than their retention.
            time: SystemClock.now(),
            traceparent: None,
            authtype: None,
            authid: None,
            data: serde_json::json!({"n": sequence}),
        }
    }

    /// `count` events of each key, the keys' events mixed.
    pub(crate) fn events(&self, keys: &[&str], count: i64) -> Vec<CloudEvent> {
        let of = |sequence| keys.iter().map(move |key| self.event(key, sequence));
        (1..=count).flat_map(of).collect()
    }

    /// Puts events into Kafka by way of a log and a relay.
    pub(crate) async fn relay(&self, events: &[CloudEvent]) {
        let bus = self.bus().await;
        bus.publish(events).await.unwrap();
        let relay = KafkaRelay::open(&self.config, bus).await.unwrap();
        relay_until(&relay, events.len()).await;
    }

    /// Puts a message into Kafka as it is.
    pub(crate) async fn send(&self, record: FutureRecord<'_, str, str>) {
        let producer: FutureProducer = self.client().create().unwrap();
        producer.send(record, LIMIT).await.unwrap();
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.config.brokers.as_deref().unwrap());
        client
    }

    /// Messages of a topic from its beginning, until there are `count`.
    pub(crate) fn read(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", uuid::Uuid::new_v4().to_string())
            .set("auto.offset.reset", "earliest")
            .set("topic.metadata.refresh.interval.ms", "500")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let begun = Instant::now();
        let mut found = Vec::new();
        while found.len() < count {
            assert!(begun.elapsed() < LIMIT, "{} of {count}", found.len());
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                found.push(message.detach());
            }
        }
        found
    }

    pub(crate) fn options(&self, group: &str) -> ConsumerOptions {
        ConsumerOptions {
            attempts: 3,
            backoff: Duration::from_millis(20),
            ..ConsumerOptions::new(format!("{group}-{}", self.topic), vec![self.topic.clone()])
        }
    }

    /// A consumer that runs.
    pub(crate) fn start(&self, group: &str, handler: impl Handler) -> RunningConsumer {
        let stop = CancellationToken::new();
        let consumer = Consumer::new(self.config.clone(), self.options(group), handler);
        RunningConsumer {
            task: tokio::spawn(consumer.run(stop.clone())),
            stop,
        }
    }
}

/// A consumer that runs.
pub(crate) struct RunningConsumer {
    pub(crate) task: JoinHandle<Result<(), KafkaError>>,
    pub(crate) stop: CancellationToken,
}

impl RunningConsumer {
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Moves events until there were `count`.
pub(crate) async fn relay_until(relay: &KafkaRelay, count: usize) {
    let begun = Instant::now();
    let mut moved = 0;
    while moved < count {
        assert!(begun.elapsed() < LIMIT, "{moved} of {count}");
        moved += relay.tick().await.unwrap_or_else(|error| {
            println!("not yet: {error}");
            0
        });
    }
}

/// What a handler got: key, sequence, partition.
pub(crate) type Received = Arc<Mutex<Vec<(String, i64, i32)>>>;

/// A handler that notes what it gets, after `time`.
pub(crate) struct RecordingHandler {
    pub(crate) received: Received,
    pub(crate) time: Duration,
}

impl Handler for RecordingHandler {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        if !self.time.is_zero() {
            tokio::time::sleep(self.time).await;
        }
        self.received.lock().unwrap().push(record_of(delivery));
        Ok(())
    }
}

pub(crate) fn record_of(delivery: &Delivery) -> (String, i64, i32) {
    let event = &delivery.event;
    let text = |name: &str| event.attribute(name).unwrap_or_default().to_owned();
    let sequence = text("sequence").parse().unwrap();
    (text("partitionkey"), sequence, delivery.partition)
}

/// Returns when `ready`; `what` is said when that takes too long.
pub(crate) async fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The sequences of a key in the order of their arrival, repetitions left out.
pub(crate) fn distinct_sequences(received: &[(String, i64, i32)], key: &str) -> Vec<i64> {
    let key = format!("default/{key}");
    let mut found = Vec::new();
    for (_, sequence, _) in received.iter().filter(|(of, ..)| *of == key) {
        if !found.contains(sequence) {
            found.push(*sequence);
        }
    }
    found
}
