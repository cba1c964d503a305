//! From Kafka to a handler: at least once, in order per partition, partitions at the same time.
//!
//! ```text
//! poll (a thread) ──► queue of a partition (bounded, else paused) ──► handler ──► done up to here
//!       └── every half second: what is done ──► commit                  └──► `<topic>.dlq`
//! ```
//!
//! Only what was done is committed: after the handler returned, or after a dead letter is with the
//! brokers. A partition that goes to another member of the group is released when the event at
//! hand is done and committed. Kafka being away is no failure: the consumer waits and goes on.

mod group;
mod partition_queue;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::types::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;

use super::dead_letters::DeadLetters;
use super::received::ReceivedEvent;
use super::{KafkaConfig, KafkaError};
use group::Group;
use partition_queue::{PartitionQueue, Worker};

/// How long a poll waits; queues that take messages again are resumed that late at most.
const POLL: Duration = Duration::from_millis(20);

/// How long a consumer waits before it asks brokers again that are away.
const RETRY: Duration = Duration::from_secs(1);

/// What a consumer reads, and how often it tries again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Members of one group share the partitions; each event goes to one of them.
    pub group: String,
    /// The topics.
    pub topics: Vec<String>,
    /// Whether a group that is new begins with what is there, and not with what comes.
    pub from_beginning: bool,
    /// Attempts at an event before it is a dead letter, at least 1.
    pub attempts: u32,
    /// The pause after the first failed attempt; it doubles with each one.
    pub backoff: Duration,
    /// No pause is longer.
    pub backoff_max: Duration,
}

impl ConsumerOptions {
    /// From the beginning of the topics; five attempts, with pauses from one second on that double.
    pub fn new(group: impl Into<String>, topics: Vec<String>) -> Self {
        Self {
            group: group.into(),
            topics,
            from_beginning: true,
            attempts: 5,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_mins(1),
        }
    }
}

/// An event for a handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The topic that it was read from.
    pub topic: String,
    /// The partition of that topic.
    pub partition: i32,
    /// The offset in that partition.
    pub offset: i64,
    /// The number of the attempt, from 1. It does not rise while what the handler needs is away.
    pub attempt: u32,
    /// The event.
    pub event: ReceivedEvent,
}

/// Why an event was not handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Perhaps another attempt succeeds; after some the event is a dead letter.
    #[error("{0}")]
    Retry(String),
    /// What the handler needs is away: tried again for as long as it takes.
    #[error("{0}")]
    Unavailable(String),
    /// No attempt will succeed: a dead letter at once.
    #[error("{0}")]
    Poison(String),
}

/// Does what events ask for. The future is dropped at any await if it takes longer than 30 seconds
/// after its partition was revoked or the consumer was stopped; the event then comes again, here or
/// elsewhere.
pub trait Handler: Send + Sync + 'static {
    /// Handles one event; it is committed after this returned.
    fn handle(&self, delivery: &Delivery) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Called every few minutes for what has to be done now and then.
    fn maintain(&self) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }
}

impl<H: Handler> Handler for Arc<H> {
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        self.as_ref().handle(delivery).await
    }

    async fn maintain(&self) -> Result<(), Failure> {
        self.as_ref().maintain().await
    }
}

/// A member of a group.
pub struct Consumer<H> {
    config: KafkaConfig,
    options: ConsumerOptions,
    handler: Arc<H>,
}

impl<H: Handler> Consumer<H> {
    /// A consumer that is not started.
    pub fn new(config: KafkaConfig, options: ConsumerOptions, handler: H) -> Self {
        Self {
            config,
            options,
            handler: Arc::new(handler),
        }
    }

    /// Consumes until `stop`, then commits what is done and leaves the group.
    ///
    /// # Errors
    /// Settings that cannot be used, dead letter topics that cannot be made, a group that the
    /// brokers refuse, a handler that panicked. Not that brokers are away.
    pub async fn run(self, stop: CancellationToken) -> Result<(), KafkaError> {
        let mut client = self.config.client()?;
        client
            .set("group.id", &self.options.group)
            // Offsets are committed by hand: librdkafka's own commits would count what was only
            // delivered.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Partitions that stay with a member go on while others move.
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "15000")
            .set(
                "auto.offset.reset",
                if self.options.from_beginning {
                    "earliest"
                } else {
                    "latest"
                },
            )
            // With the queues' own limits these bound what is kept in memory.
            .set("queued.max.messages.kbytes", "16384")
            .set("queued.min.messages", "1000")
            // A topic that is not there yet is looked for this often.
            .set("topic.metadata.refresh.interval.ms", "10000");
        let dead_letters = DeadLetters::new(&self.config, &self.options.group)?;
        // Before anything is read: a message that cannot be handled would block its partition if its
        // dead letter had no topic to go to.
        if !prepare(&dead_letters, &self.options, &stop).await? {
            return Ok(());
        }
        let worker = Arc::new(Worker {
            handler: Arc::clone(&self.handler),
            dead_letters,
            options: self.options.clone(),
        });
        let runtime = tokio::runtime::Handle::current();
        let spawn = {
            let runtime = runtime.clone();
            move |queue: Arc<PartitionQueue>| runtime.spawn(Arc::clone(&worker).work(queue))
        };
        let group = Group::new(self.options.group.clone(), runtime, Box::new(spawn));
        let consumer = BaseConsumer::from_config_and_context(&client, group)?;
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        // A thread that blocks cannot be aborted: only `stop` ends it.
        let polling = tokio::task::spawn_blocking({
            let stop = stop.clone();
            move || poll(&consumer, &stop)
        });
        let maintenance = run_maintenance(Arc::clone(&self.handler));
        // Errors of maintenance are only logged, so it never ends the consumer.
        let polled = tokio::select! {
            polled = polling => polled,
            never = maintenance => match never {},
        };
        polled.unwrap_or_else(|error| {
            Err(KafkaError::Stopped {
                group: self.options.group.clone(),
                problem: error.to_string(),
            })
        })
    }
}

/// Sees to it that dead letters have a place; whether to go on.
async fn prepare(
    dead_letters: &DeadLetters,
    options: &ConsumerOptions,
    stop: &CancellationToken,
) -> Result<bool, KafkaError> {
    for topic in &options.topics {
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return Ok(false),
                result = dead_letters.prepare(topic) => result,
            };
            match result {
                Ok(()) => break,
                Err(KafkaError::Client(error)) => {
                    tracing::warn!(%error, "Kafka does not answer, trying again");
                }
                Err(refused) => return Err(refused),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
    Ok(true)
}

/// Puts messages into their queues; runs on a thread of its own, because brokers are waited for and
/// a rebalance waits for queues.
fn poll(consumer: &BaseConsumer<Group>, stop: &CancellationToken) -> Result<(), KafkaError> {
    let group = consumer.context();
    let polled = loop {
        if stop.is_cancelled() {
            break Ok(());
        }
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => group.push(consumer, message.detach())?,
            Some(Err(error)) if is_final(&error) => break Err(error.into()),
            // Brokers that are away, topics that are not there yet: it goes on by itself.
            Some(Err(error)) => tracing::warn!(%error, "nothing can be read at the moment"),
        }
        if let Err(stopped) = group.resume_and_commit(consumer) {
            break Err(stopped);
        }
    };
    // After an error too: what was done until then is committed.
    group.stop_all(consumer);
    polled
}

/// Whether no waiting helps.
fn is_final(error: &rdkafka::error::KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
        )
    )
}

async fn run_maintenance<H: Handler>(handler: Arc<H>) -> std::convert::Infallible {
    const PERIOD: Duration = Duration::from_mins(10);
    loop {
        if let Err(error) = handler.maintain().await {
            tracing::warn!(%error, "tidying up failed, trying again later");
        }
        tokio::time::sleep(PERIOD).await;
    }
}
