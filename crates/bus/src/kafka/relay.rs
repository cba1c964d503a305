//! From the log to Kafka: at least once, in order per key.
//!
//! Kafka is fed from the log and not beside it: while it is away the log goes on, and afterwards it
//! gets everything from where it stopped, in order. A crash may repeat the last events, with their
//! ids. Several batches are under way at once: librdkafka keeps their order, and the position only
//! passes what the brokers have. It is stored now and then, not with every batch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ferroflow_db::{Db, DbError, Read as _};
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::binding::LoggedEvent;
use super::topics::Topics;
use super::{KafkaConfig, KafkaError};
use crate::Bus;
use crate::embedded::relay_position;

/// The name under which the position is kept.
pub const CURSOR: &str = "kafka";

/// Events that are read at once.
const BATCH: usize = 1000;

/// Batches under way at once: reading, sending and the brokers' answers overlap.
const WINDOW: usize = 8;

/// Batches that one tick moves at most, so that whoever calls it can stop in between.
const TICK_BATCHES: usize = 64;

/// How often the position is stored; a crash repeats what was sent since.
const STORE_EVERY: Duration = Duration::from_millis(250);

/// How long the relay waits for room in the producer's queue before it looks again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

/// Moves the log to Kafka. There must be one per log.
pub struct KafkaRelay {
    bus: Bus,
    db: Db,
    producer: ThreadedProducer<DeliveryReports>,
    topics: Topics,
    /// Held while events are moved: two movers would change their order.
    progress: AsyncMutex<Progress>,
    /// The same position for those who wait.
    position: AtomicI64,
}

/// How far the relay has come.
struct Progress {
    position: i64,
    stored: i64,
    stored_at: Instant,
    /// The brokers refused something: one event at a time until they take it, so that what comes
    /// after it is not sent again and again.
    one_by_one: bool,
}

impl Progress {
    fn is_store_due(&self) -> bool {
        self.position > self.stored && self.stored_at.elapsed() >= STORE_EVERY
    }
}

impl KafkaRelay {
    /// A relay that goes on where the last one stopped. Brokers need not be there yet.
    ///
    /// # Errors
    /// Settings that cannot be used, and a log that cannot be read.
    pub async fn open(config: &KafkaConfig, bus: Bus) -> Result<Self, KafkaError> {
        let mut client = config.producer()?;
        client
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            // Never given up: a message that is dropped would let a later one of its key pass.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.kbytes", "65536");
        let producer = ThreadedProducer::from_config_and_context(&client, DeliveryReports)?;
        let db = bus.db().clone();
        let position = stored_position(&db).await?;
        Ok(Self {
            topics: Topics::new(config)?,
            bus,
            db,
            producer,
            progress: AsyncMutex::new(Progress {
                position,
                stored: position,
                stored_at: Instant::now(),
                one_by_one: false,
            }),
            position: AtomicI64::new(position),
        })
    }

    /// Moves what is in the log; how many events the brokers took.
    ///
    /// # Errors
    /// What is not moved is moved by the next call.
    pub async fn tick(&self) -> Result<usize, KafkaError> {
        let mut progress = self.progress.lock().await;
        let mut in_flight = VecDeque::new();
        let moved = self.move_events(&mut progress, &mut in_flight).await;
        match &moved {
            Ok(1..) => progress.one_by_one = false,
            Ok(0) => {}
            Err(error) => progress.one_by_one |= matches!(error, KafkaError::Refused { .. }),
        }
        // Whatever comes next must not be sent while older events are still under way.
        for batch in in_flight {
            batch.reports.all_reported().await;
        }
        // After an error too: what was moved until then is not to be repeated by the next relay.
        if progress.is_store_due() || moved.is_err() {
            self.store(&mut progress).await?;
        }
        moved
    }

    /// Stores how far it came, so that the next relay repeats nothing.
    ///
    /// # Errors
    /// The next relay repeats what was moved in the last moments.
    pub async fn close(&self) -> Result<(), KafkaError> {
        let mut progress = self.progress.lock().await;
        Ok(self.store(&mut progress).await?)
    }

    /// Returns when there is something to move, or something is left to be stored.
    pub async fn wait(&self) {
        let position = self.position.load(Ordering::Relaxed);
        tokio::select! {
            () = self.bus.wait_after(position) => {}
            () = tokio::time::sleep(STORE_EVERY), if self.is_unstored().await => {}
        }
    }

    async fn is_unstored(&self) -> bool {
        let progress = self.progress.lock().await;
        progress.position > progress.stored
    }

    async fn move_events(
        &self,
        progress: &mut Progress,
        in_flight: &mut VecDeque<Batch>,
    ) -> Result<usize, KafkaError> {
        let (mut read_to, mut batches, mut moved, mut more) = (progress.position, 0, 0, true);
        let (size, window) = if progress.one_by_one {
            (1, 1)
        } else {
            (BATCH, WINDOW)
        };
        loop {
            while more && batches < TICK_BATCHES && in_flight.len() < window {
                let texts = self.bus.texts_after(read_to, size).await?;
                more = texts.len() == size;
                let Some((last, _)) = texts.last() else {
                    break;
                };
                read_to = *last;
                batches += 1;
                in_flight.push_back(self.send(&texts, read_to).await?);
            }
            let Some(first) = in_flight.front() else {
                return Ok(moved);
            };
            first.reports.all_reported().await;
            first.reports.outcome()?;
            moved += first.count;
            // Batches are passed in their order, and only when the brokers have all of one.
            progress.position = first.up_to;
            self.position.store(first.up_to, Ordering::Relaxed);
            in_flight.pop_front();
            if progress.is_store_due() {
                self.store(progress).await?;
            }
        }
    }

    /// Puts a batch on its way.
    async fn send(&self, texts: &[(i64, String)], up_to: i64) -> Result<Batch, KafkaError> {
        let mut events = Vec::with_capacity(texts.len());
        for (_, text) in texts {
            let event = LoggedEvent::of(text)
                .map_err(|error| DbError::inconsistent("event_log", "event", error.to_string()))?;
            // Made before its first message, for the reason that `topics` gives.
            if !self.topics.is_known(&event.topic) {
                self.topics.ensure(&event.topic).await?;
            }
            events.push(event);
        }
        let reports = Arc::new(BatchReports::of(events.len()));
        for event in &events {
            self.send_one(event, &reports).await;
        }
        Ok(Batch {
            up_to,
            count: events.len(),
            reports,
        })
    }

    async fn send_one(&self, event: &LoggedEvent<'_>, reports: &Arc<BatchReports>) {
        let mut record = BaseRecord::with_opaque_to(event.topic.as_ref(), Arc::clone(reports))
            .key(event.key.as_ref())
            .payload(event.value())
            .timestamp(event.time.millis())
            .headers(event.headers());
        while let Err((error, back)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                reports.report(Some(refused(&event.topic, &event.key, error)));
                return;
            }
            // As long as it takes: while brokers are away, the log is the queue.
            tokio::time::sleep(QUEUE_FULL_WAIT).await;
            record = back;
        }
    }

    async fn store(&self, progress: &mut Progress) -> Result<(), DbError> {
        if progress.position > progress.stored {
            store_position(&self.db, progress.position).await?;
            progress.stored = progress.position;
        }
        progress.stored_at = Instant::now();
        Ok(())
    }
}

/// Events that were sent together.
struct Batch {
    up_to: i64,
    count: usize,
    reports: Arc<BatchReports>,
}

/// What the brokers said about a batch so far.
struct BatchReports {
    outstanding: AtomicUsize,
    failed: Mutex<Option<KafkaError>>,
    complete: Notify,
}

impl BatchReports {
    fn of(count: usize) -> Self {
        Self {
            outstanding: AtomicUsize::new(count),
            failed: Mutex::default(),
            complete: Notify::new(),
        }
    }

    fn report(&self, failed: Option<KafkaError>) {
        if failed.is_some() {
            let mut first = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none() {
                *first = failed;
            }
        }
        // Counted after the failure is noted, so that who sees zero sees the failure as well.
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.notify_one();
        }
    }

    /// Returns when there is an answer about each event; one waits at a time.
    async fn all_reported(&self) {
        while self.outstanding.load(Ordering::Acquire) > 0 {
            self.complete.notified().await;
        }
    }

    fn outcome(&self) -> Result<(), KafkaError> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), Err)
    }
}

/// Takes the brokers' answers; called by the producer's own thread.
struct DeliveryReports;

impl ClientContext for DeliveryReports {}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = Arc<BatchReports>;

    fn delivery(&self, result: &DeliveryResult<'_>, reports: Self::DeliveryOpaque) {
        let failed = result.as_ref().err().map(|(error, message)| {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default());
            refused(message.topic(), &key, error.clone())
        });
        reports.report(failed);
    }
}

fn refused(topic: &str, key: &str, source: ClientError) -> KafkaError {
    KafkaError::Refused {
        message: format!("of {key} into {topic}"),
        source,
    }
}

async fn stored_position(db: &Db) -> Result<i64, DbError> {
    relay_position(&mut db.begin_read().await?, CURSOR).await
}

/// A position never goes back: a relay that was slow must not undo what its successor noted.
async fn store_position(db: &Db, position: i64) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    sqlx::query(
        "INSERT INTO relay_cursors (name, position) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET position = excluded.position \
         WHERE excluded.position > relay_cursors.position",
    )
    .bind(CURSOR)
    .bind(position)
    .execute(tx.conn())
    .await?;
    tx.commit().await
}
