//! Where messages go that nobody can handle: `<topic>.dlq`, as they were, with the reason beside.

use std::time::Duration;

use ferroflow_types::Clock as _;
use ferroflow_types::time::SystemClock;
use rdkafka::Message as _;
use rdkafka::message::{Header, Headers as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::topics::Topics;
use super::{KafkaConfig, KafkaError};

/// How long one attempt to send may take; who sends tries again.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// What the added headers begin with; a message that is sent back loses them.
pub(super) const HEADER_PREFIX: &str = "dlq-";

/// The topic of dead letters of `topic`.
pub(super) fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// Sends dead letters.
pub(super) struct DeadLetters {
    producer: FutureProducer,
    topics: Topics,
    group: String,
}

impl DeadLetters {
    pub(super) fn new(config: &KafkaConfig, group: &str) -> Result<Self, KafkaError> {
        let producer = config
            .producer()?
            .set("message.timeout.ms", SEND_TIMEOUT.as_millis().to_string())
            .create()?;
        Ok(Self {
            producer,
            topics: Topics::new(config)?,
            group: group.to_owned(),
        })
    }

    /// Sees to it that there is a place for dead letters of `topic`.
    pub(super) async fn prepare(&self, topic: &str) -> Result<(), KafkaError> {
        self.topics.ensure(&dead_letter_topic(topic)).await
    }

    /// Sends a message there; returns when the brokers have it.
    pub(super) async fn send(
        &self,
        message: &OwnedMessage,
        reason: &str,
        attempts: u32,
    ) -> Result<(), KafkaError> {
        let topic = dead_letter_topic(message.topic());
        let added = [
            ("dlq-reason", reason.to_owned()),
            ("dlq-attempts", attempts.to_string()),
            ("dlq-topic", message.topic().to_owned()),
            ("dlq-partition", message.partition().to_string()),
            ("dlq-offset", message.offset().to_string()),
            ("dlq-group", self.group.clone()),
            ("dlq-time", SystemClock.now().to_string()),
        ];
        let mut headers = OwnedHeaders::new();
        if let Some(original) = message.headers() {
            // A message that was sent back and failed again has such headers from before: the last
            // failure counts.
            for header in original
                .iter()
                .filter(|one| !one.key.starts_with(HEADER_PREFIX))
            {
                headers = headers.insert(header);
            }
        }
        for (key, value) in &added {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&topic).headers(headers);
        record.key = message.key();
        record.payload = message.payload();
        record.timestamp = message.timestamp().to_millis();
        let sent = self
            .producer
            .send(record, Timeout::After(SEND_TIMEOUT))
            .await;
        sent.map(drop).map_err(|(source, _)| {
            let key = String::from_utf8_lossy(message.key().unwrap_or_default());
            KafkaError::Refused {
                message: format!("of {key} into {topic}"),
                source,
            }
        })
    }
}
