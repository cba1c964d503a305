//! Topics, made before the first message.
//!
//! A topic that brokers make by themselves has their default number of partitions, often one, and
//! adding some later moves keys and breaks their order. So topics are made here, as the settings
//! say; one that is there already stays as it is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

use super::{KafkaConfig, KafkaError};

/// How long brokers may take to answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes topics, and remembers which it has seen.
pub(super) struct Topics {
    admin: Arc<AdminClient<DefaultClientContext>>,
    partitions: i32,
    replication: i32,
    existing: Mutex<BTreeSet<String>>,
}

impl Topics {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        Ok(Self {
            admin: Arc::new(config.client()?.create()?),
            partitions: config.partitions.into(),
            // The brokers' own setting is asked for by -1.
            replication: config.replication.map_or(-1, i32::from),
            existing: Mutex::default(),
        })
    }

    /// Whether the topic is known to be there.
    pub(super) fn is_known(&self, topic: &str) -> bool {
        let existing = self.existing.lock().unwrap_or_else(PoisonError::into_inner);
        existing.contains(topic)
    }

    /// Sees to it that the topic is there.
    ///
    /// # Errors
    /// [`KafkaError::Client`] when the brokers cannot be reached, [`KafkaError::Topic`] when they
    /// do not make it.
    pub(super) async fn ensure(&self, topic: &str) -> Result<(), KafkaError> {
        if self.is_known(topic) {
            return Ok(());
        }
        let new = NewTopic::new(
            topic,
            self.partitions,
            TopicReplication::Fixed(self.replication),
        );
        let options = AdminOptions::new()
            .request_timeout(Some(BROKER_TIMEOUT))
            .operation_timeout(Some(BROKER_TIMEOUT));
        // For a topic that is there the answer is `TopicAlreadyExists`, so nobody has to look first.
        let results = self.admin.create_topics([&new], &options).await?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, refused)) => self.check_refusal(topic, refused).await?,
            }
        }
        let mut existing = self.existing.lock().unwrap_or_else(PoisonError::into_inner);
        existing.insert(topic.to_owned());
        Ok(())
    }

    /// Brokers refuse a user that may not make topics before they look whether the topic is there, so
    /// that is asked here.
    async fn check_refusal(&self, topic: &str, code: RDKafkaErrorCode) -> Result<(), KafkaError> {
        let problem = match code {
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                if topic_exists(&self.admin, topic).await? {
                    return Ok(());
                }
                format!(
                    "it is not there (or may not be seen), and this user may not make it: create \
                     it with {} partitions, or allow Create on it",
                    self.partitions
                )
            }
            RDKafkaErrorCode::InvalidReplicationFactor => format!(
                "it is not there, and the brokers refuse events.kafka.replication = {}: it must \
                 not be above their number",
                self.replication
            ),
            RDKafkaErrorCode::PolicyViolation => format!(
                "it is not there, and a policy of the brokers forbids one with {} partitions and \
                 replication {}: create it by hand or change events.kafka.partitions",
                self.partitions, self.replication
            ),
            other => format!("it is not there and cannot be made: {other}"),
        };
        Err(KafkaError::Topic {
            topic: topic.to_owned(),
            problem,
        })
    }
}

/// Whether there is such a topic. All are asked for: naming one would make it, where brokers make
/// topics by themselves.
async fn topic_exists(
    admin: &Arc<AdminClient<DefaultClientContext>>,
    topic: &str,
) -> Result<bool, KafkaError> {
    let (admin, topic) = (Arc::clone(admin), topic.to_owned());
    let lookup = move || {
        let metadata = admin.inner().fetch_metadata(None, BROKER_TIMEOUT)?;
        Ok(metadata.topics().iter().any(|found| found.name() == topic))
    };
    // Only a panic or the end of the program keeps it from answering.
    tokio::task::spawn_blocking(lookup)
        .await
        .unwrap_or(Ok(false))
}
