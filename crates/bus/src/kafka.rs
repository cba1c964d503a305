//! The event log on Kafka, and consumers of what is there.
//!
//! ```text
//! outbox ──► Relay ──► event log ──► KafkaRelay ──► topic `ferroflow.<domain>.v1`
//!                          │                              │
//!                          └──► EventService, SSE         └──► Consumer ──► handler
//!                                                                  └──► `<topic>.dlq`
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `config` | how brokers are reached: TLS, SASL; one struct for relay and consumers |
//! | `binding` | our events as Kafka messages (CloudEvents 1.0, binary mode) |
//! | [`received`] | anybody's CloudEvents out of Kafka messages |
//! | `topics` | topics, made before the first message and not by accident |
//! | `relay` | from the log to Kafka, at least once, in order per key |
//! | [`consumer`] | from Kafka to a handler, in order per partition |
//! | `redrive` | dead letters, back to where they came from |
//! | [`idempotent`] | a handler whose effect happens once, in a transaction with what was seen |

mod binding;
mod config;
pub mod consumer;
mod dead_letters;
pub mod idempotent;
pub mod received;
mod redrive;
mod relay;
mod topics;

use ferroflow_db::DbError;
use rdkafka::types::RDKafkaErrorCode;

pub use config::KafkaConfig;
pub use consumer::{Consumer, ConsumerOptions, Delivery, Failure, Handler};
pub use redrive::redrive;
pub use relay::{CURSOR, KafkaRelay};

/// Why events do not get to Kafka, or out of it.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The log.
    #[error("the event log")]
    Log(#[from] DbError),
    /// The brokers.
    #[error("Kafka")]
    Client(#[from] rdkafka::error::KafkaError),
    /// A setting that cannot be used.
    #[error("events.kafka.{setting}: {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// A topic that is not there and cannot be made.
    #[error("topic {topic}: {problem}")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// A message that the brokers refused.
    #[error("the brokers do not take a message: {message}")]
    Refused {
        /// Its key and topic.
        message: String,
        /// Why.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// A consumer that cannot go on.
    #[error("the consumer of {group} stopped: {problem}")]
    Stopped {
        /// Its group.
        group: String,
        /// Why.
        problem: String,
    },
}

impl KafkaError {
    /// Whether the client can do nothing more, and a new one is needed.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Client(source) | Self::Refused { source, .. } => {
                source.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)
            }
            _ => false,
        }
    }
}
