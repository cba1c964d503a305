//! The event log on Kafka, for consumers of their own kind.
//!
//! ```text
//! outbox ──► Relay ──► event log ──► KafkaRelay ──► topic `ferroflow.<domain>.v1`
//!                          └──► EventService, SSE
//! ```
//!
//! Kafka is fed from the log and not beside it: while it is away the log goes on, and afterwards it
//! gets everything from where it stopped, in order. At least once: a crash may repeat the last
//! events, with their ids. Events are CloudEvents 1.0 in binary mode (Kafka protocol binding 1.0.2):
//! attributes as `ce_…` headers, the data as protobuf JSON, the key `<namespace>/<id>`.

use std::sync::atomic::{AtomicI64, Ordering};

use ferroflow_db::{Db, DbError, Read as _};
use ferroflow_types::CloudEvent;
use futures::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use crate::{Bus, EventFilter};

/// Events that are under way at once; librdkafka keeps their order.
const BATCH: i64 = 1000;

/// The name under which the position is kept.
const CURSOR: &str = "kafka";

/// Settings of the way to Kafka.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port` of some brokers, with commas between; empty for no Kafka.
    pub brokers: String,
    /// `plaintext` or `sasl_plaintext`; empty for `plaintext`.
    pub security_protocol: String,
    /// `PLAIN`, where the protocol has SASL.
    pub sasl_mechanism: String,
    /// The user's name for SASL.
    pub sasl_username: String,
    /// A file with the user's password for SASL.
    pub sasl_password_file: String,
}

/// Why events do not get to Kafka.
#[derive(Debug, thiserror::Error)]
pub enum KafkaRelayError {
    /// The log.
    #[error("the event log")]
    Log(#[from] DbError),
    /// The broker, or the settings.
    #[error("Kafka")]
    Kafka(#[from] KafkaError),
    /// A setting.
    #[error("events.kafka.{0}")]
    Setting(String),
}

impl KafkaConfig {
    fn client(&self) -> Result<ClientConfig, KafkaRelayError> {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "ferroflow");
        match self.security_protocol.as_str() {
            "" | "plaintext" => {}
            "sasl_plaintext" => {
                let password =
                    std::fs::read_to_string(&self.sasl_password_file).map_err(|error| {
                        KafkaRelayError::Setting(format!("sasl_password_file: {error}"))
                    })?;
                client
                    .set("security.protocol", "sasl_plaintext")
                    .set("sasl.mechanism", &self.sasl_mechanism)
                    .set("sasl.username", &self.sasl_username)
                    .set("sasl.password", password.trim_end());
            }
            other => {
                return Err(KafkaRelayError::Setting(format!(
                    "security_protocol: {other:?} is not one that this build speaks: use \
                     plaintext or sasl_plaintext, behind a proxy that does TLS"
                )));
            }
        }
        Ok(client)
    }
}

/// Moves the log to Kafka. There must be one per log.
pub struct KafkaRelay {
    bus: Bus,
    db: Db,
    producer: FutureProducer,
    position: AtomicI64,
}

impl KafkaRelay {
    /// A relay that goes on where the last one stopped.
    pub async fn open(config: &KafkaConfig, bus: Bus) -> Result<Self, KafkaRelayError> {
        let producer = config
            .client()?
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "2")
            // Never given up: a message that is dropped would let a later one of its key pass.
            .set("message.timeout.ms", "0")
            .create()?;
        let db = bus.db().clone();
        let position = stored(&db).await?;
        Ok(Self {
            bus,
            db,
            producer,
            position: AtomicI64::new(position),
        })
    }

    /// Moves what is in the log; how many events it was.
    pub async fn tick(&self) -> Result<usize, KafkaRelayError> {
        let position = self.position.load(Ordering::Relaxed);
        let batch = self
            .bus
            .read_after(position, &EventFilter::default(), BATCH)
            .await?;
        let events: Vec<&CloudEvent> = batch.events.iter().map(|(_, event)| event).collect();
        let sent = events.iter().map(|event| self.send(event));
        try_join_all(sent).await?;
        if batch.scanned > position {
            store(&self.db, batch.scanned).await?;
            self.position.store(batch.scanned, Ordering::Relaxed);
        }
        Ok(events.len())
    }

    /// Returns when there is something to move.
    pub async fn wait(&self) {
        self.bus
            .wait_after(self.position.load(Ordering::Relaxed))
            .await;
    }

    async fn send(&self, event: &CloudEvent) -> Result<(), KafkaError> {
        let data = event.data.to_string();
        let record = FutureRecord::to(&event.topic)
            .key(&event.key)
            .payload(&data)
            .timestamp(event.time.millis())
            .headers(headers(event));
        // Waits for room in the producer's queue for as long as it takes.
        let sent = self
            .producer
            .send(record, rdkafka::util::Timeout::Never)
            .await;
        sent.map(drop).map_err(|(error, _)| error)
    }
}

fn headers(event: &CloudEvent) -> OwnedHeaders {
    let time = event.time.to_string();
    let sequence = event.sequence.to_string();
    let id = event.id.to_string();
    let mut named = vec![
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_type", &event.event_type),
        ("ce_source", &event.source),
        ("ce_subject", &event.subject),
        ("ce_time", &time),
        ("ce_sequence", &sequence),
        ("ce_namespace", &event.namespace),
        ("content-type", "application/json"),
    ];
    if let Some(traceparent) = &event.traceparent {
        named.push(("ce_traceparent", traceparent));
        named.push(("traceparent", traceparent));
    }
    let room = OwnedHeaders::new_with_capacity(named.len());
    named.into_iter().fold(room, |headers, (key, value)| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    })
}

async fn stored(db: &Db) -> Result<i64, DbError> {
    let mut tx = db.begin_read().await?;
    let row = sqlx::query("SELECT position FROM relay_cursors WHERE name = $1")
        .bind(CURSOR)
        .fetch_optional(tx.conn())
        .await?;
    Ok(row
        .map(|row| row.try_get("position"))
        .transpose()?
        .unwrap_or(0))
}

async fn store(db: &Db, position: i64) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    sqlx::query(
        "INSERT INTO relay_cursors (name, position) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET position = excluded.position",
    )
    .bind(CURSOR)
    .bind(position)
    .execute(tx.conn())
    .await?;
    tx.commit().await
}
