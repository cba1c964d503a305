//! Our events as Kafka messages: CloudEvents 1.0, Kafka protocol binding 1.0.2, binary mode.
//!
//! Attributes are `ce_…` headers, the value is the data as protobuf JSON, the key orders. An event
//! is taken out of the log's text without being built: the data goes to Kafka as it was written.

use std::borrow::Cow;

use ferroflow_types::Timestamp;
use rdkafka::message::{Header, OwnedHeaders};
use serde::Deserialize;
use serde_json::value::RawValue;

/// An event of the log, which borrows its texts from the stored JSON.
#[derive(Debug, Deserialize)]
pub(super) struct LoggedEvent<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) topic: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    sequence: i64,
    pub(super) time: Timestamp,
    #[serde(borrow, default)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    authtype: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    authid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl<'a> LoggedEvent<'a> {
    /// The event in a text of the log.
    pub(super) fn of(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// What the message's value is.
    pub(super) fn value(&self) -> &'a str {
        self.data.get()
    }

    /// The message's headers.
    pub(super) fn headers(&self) -> OwnedHeaders {
        let time = self.time.to_string();
        let sequence = self.sequence.to_string();
        let attributes = [
            ("ce_specversion", "1.0"),
            ("ce_id", self.id.as_ref()),
            ("ce_type", self.event_type.as_ref()),
            ("ce_source", self.source.as_ref()),
            ("ce_subject", self.subject.as_ref()),
            ("ce_time", &time),
            ("ce_sequence", &sequence),
            ("ce_namespace", self.namespace.as_ref()),
            // The binding maps `datacontenttype` to this header, which has no prefix.
            ("content-type", "application/json"),
        ];
        // Once as the extension of CloudEvents, once under the name that tracing libraries read from
        // messages.
        let trace = self.traceparent.as_deref().map(|traceparent| {
            [
                ("ce_traceparent", traceparent),
                ("traceparent", traceparent),
            ]
        });
        let auth = [
            self.authtype.as_deref().map(|kind| ("ce_authtype", kind)),
            self.authid.as_deref().map(|subject| ("ce_authid", subject)),
        ];
        let empty = OwnedHeaders::new_with_capacity(attributes.len() + 4);
        let all = attributes
            .into_iter()
            .chain(trace.into_iter().flatten())
            .chain(auth.into_iter().flatten());
        all.fold(empty, |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        })
    }
}
