//! What a service tells the world: CloudEvents 1.0, written in the transaction of the change.

use serde::{Deserialize, Serialize};

use crate::id::EventId;
use crate::time::Timestamp;

/// A CloudEvent 1.0 (<https://github.com/cloudevents/spec>) with the attributes we always set.
///
/// `key` orders events: all events of one object (`<namespace>/<id>`) arrive in the order of their
/// `sequence`; nothing is promised between objects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CloudEvent {
    /// Unique; a consumer that sees it twice ignores the second.
    pub id: EventId,
    /// The log it belongs to, `ferroflow.<domain>.v1`.
    pub topic: String,
    /// What happened, `ai.ferroflow.<noun>.<verb>`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Who says so, `//ferroflow/<service>`.
    pub source: String,
    /// The object's resource path, for example `namespaces/default/runs/<id>`.
    pub subject: String,
    /// The tenant it belongs to.
    pub namespace: String,
    /// Order is kept among events of equal key, `<namespace>/<id>`.
    pub key: String,
    /// Counts the events of one key, from 1.
    pub sequence: i64,
    /// When it happened.
    pub time: Timestamp,
    /// W3C `traceparent` of the change, when it was traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The protobuf JSON of the event's message. Never secrets.
    pub data: serde_json::Value,
}
