//! Sends dead letters back to the topics that they came from, once the cause is fixed.
//!
//! What is there at the start is sent back, oldest first, without the headers that were added. The
//! position is kept as the offset of a group, so a second call sends only what came since.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{Headers as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::dead_letters::HEADER_PREFIX;
use super::{KafkaConfig, KafkaError};

/// How long brokers may take for each answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

/// The group that remembers what was sent back.
fn group_of(topic: &str) -> String {
    format!("ferroflow-redrive-{topic}")
}

/// Sends what is in a topic of dead letters back; how many messages it was.
///
/// # Errors
/// The message at hand stays where it is: one that says of no topic that it came from there, and
/// whatever the brokers refuse.
pub async fn redrive(config: &KafkaConfig, topic: &str) -> Result<u64, KafkaError> {
    let producer: FutureProducer = config
        .producer()?
        .set("message.timeout.ms", BROKER_TIMEOUT.as_millis().to_string())
        .create()?;
    let consumer: BaseConsumer = config
        .client()?
        .set("group.id", group_of(topic))
        .set("enable.auto.commit", "false")
        .create()?;
    let (topic, runtime) = (topic.to_owned(), tokio::runtime::Handle::current());
    let redrive_all = move || -> Result<u64, KafkaError> {
        let mut moved = 0;
        for (partition, from, to) in pending_ranges(&consumer, &topic)? {
            let mut at = from;
            consumer.assign(&partition_offset(&topic, partition, from)?)?;
            while at < to {
                let Some(message) = consumer.poll(BROKER_TIMEOUT) else {
                    let problem = format!("partition {partition} cannot be read from {at} on");
                    return Err(KafkaError::Topic { topic, problem });
                };
                let message = message?.detach();
                at = message.offset() + 1;
                runtime.block_on(send_back(&producer, &message))?;
                // After each message, so that a crash sends one of them again at most.
                consumer.commit(&partition_offset(&topic, partition, at)?, CommitMode::Sync)?;
                moved += 1;
            }
        }
        Ok(moved)
    };
    tokio::task::spawn_blocking(redrive_all)
        .await
        .unwrap_or_else(|error| {
            Err(KafkaError::Stopped {
                group: "redrive".to_owned(),
                problem: error.to_string(),
            })
        })
}

fn partition_offset(
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    Ok(list)
}

/// The partitions that hold something, from where to where.
fn pending_ranges(
    consumer: &BaseConsumer,
    topic: &str,
) -> Result<Vec<(i32, i64, i64)>, KafkaError> {
    // All topics are asked for: naming one would make it, where brokers make topics by themselves.
    let metadata = consumer.fetch_metadata(None, BROKER_TIMEOUT)?;
    let found = metadata.topics().iter().find(|one| one.name() == topic);
    let found = found.ok_or_else(|| KafkaError::Topic {
        topic: topic.to_owned(),
        problem: "it is not there, or this user may not see it".to_owned(),
    })?;
    // Brokers that have no leader for it yet leave them out.
    if found.partitions().is_empty() {
        return Err(KafkaError::Topic {
            topic: topic.to_owned(),
            problem: "the brokers know no partition of it at the moment: try again".to_owned(),
        });
    }
    let mut all = TopicPartitionList::new();
    for partition in found.partitions() {
        all.add_partition(topic, partition.id());
    }
    let mut ranges = Vec::new();
    for element in consumer.committed_offsets(all, BROKER_TIMEOUT)?.elements() {
        let partition = element.partition();
        let (low, high) = consumer.fetch_watermarks(topic, partition, BROKER_TIMEOUT)?;
        // Retention may have removed what comes after the committed offset.
        let from = match element.offset() {
            Offset::Offset(committed) => committed.max(low),
            _ => low,
        };
        if from < high {
            ranges.push((partition, from, high));
        }
    }
    Ok(ranges)
}

async fn send_back(producer: &FutureProducer, message: &OwnedMessage) -> Result<(), KafkaError> {
    let mut origin = None;
    let mut headers = OwnedHeaders::new();
    if let Some(all) = message.headers() {
        for header in all.iter() {
            if header.key == "dlq-topic" {
                origin = header
                    .value
                    .and_then(|value| std::str::from_utf8(value).ok());
            } else if !header.key.starts_with(HEADER_PREFIX) {
                headers = headers.insert(header);
            }
        }
    }
    let Some(origin) = origin else {
        return Err(KafkaError::Topic {
            topic: message.topic().to_owned(),
            problem: format!(
                "the message at {} of partition {} has no header dlq-topic: it is no dead letter \
                 of ours",
                message.offset(),
                message.partition()
            ),
        });
    };
    let mut record = FutureRecord::<[u8], [u8]>::to(origin).headers(headers);
    record.key = message.key();
    record.payload = message.payload();
    record.timestamp = message.timestamp().to_millis();
    let sent = producer.send(record, Timeout::After(BROKER_TIMEOUT)).await;
    sent.map(drop).map_err(|(source, _)| KafkaError::Refused {
        message: format!("from {} back into {origin}", message.topic()),
        source,
    })
}
