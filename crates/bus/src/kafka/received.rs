//! Anybody's CloudEvents 1.0 out of Kafka messages, in binary and in structured mode.
//!
//! What is no CloudEvent is [`DecodeError`]: no later attempt will read it. Ids are unique within a
//! source, so the two together name an event.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::Message;
use rdkafka::message::Headers as _;
use serde_json::{Map, Value};

/// An event as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedEvent {
    /// Unique within its source.
    pub id: String,
    /// Who says so.
    pub source: String,
    /// What happened.
    pub event_type: String,
    /// The other attributes, `subject`, `time` and extensions among them.
    pub attributes: BTreeMap<String, Value>,
    /// What the data is; empty for JSON.
    pub content_type: String,
    /// The data.
    pub data: Data,
}

/// The data of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// There is none.
    None,
    /// JSON.
    Json(Value),
    /// Text of another type.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

/// A message that is no CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a CloudEvent: {0}")]
pub struct DecodeError(String);

/// The headers of a message by name; of equal names the last one counts.
type HeadersByName<'a> = BTreeMap<&'a str, &'a [u8]>;

impl ReceivedEvent {
    /// The event in a message.
    ///
    /// # Errors
    /// [`DecodeError`] says what is missing or wrong.
    pub fn of(message: &impl Message) -> Result<Self, DecodeError> {
        let mut by_name = HeadersByName::new();
        if let Some(headers) = message.headers() {
            for header in headers.iter() {
                by_name.insert(header.key, header.value.unwrap_or_default());
            }
        }
        let payload = message.payload();
        let content_type = text(&by_name, "content-type")?.unwrap_or_default();
        let mut event = if content_type.starts_with("application/cloudevents-batch") {
            return Err(DecodeError("a batch of events is not read".to_owned()));
        } else if content_type.starts_with("application/cloudevents") {
            structured(payload.unwrap_or_default())?
        } else {
            binary(&by_name, content_type, payload)?
        };
        // The binding maps the message's key to the extension `partitionkey`. One that the event has
        // itself wins; a key that is no text is left out.
        if let Some(Ok(key)) = message.key().map(std::str::from_utf8) {
            event
                .attributes
                .entry("partitionkey".to_owned())
                .or_insert_with(|| key.into());
        }
        Ok(event)
    }

    /// An attribute that is text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).and_then(Value::as_str)
    }

    /// The event in CloudEvents' JSON format.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("specversion".to_owned(), "1.0".into());
        fields.insert("id".to_owned(), self.id.as_str().into());
        fields.insert("source".to_owned(), self.source.as_str().into());
        fields.insert("type".to_owned(), self.event_type.as_str().into());
        if !self.content_type.is_empty() {
            fields.insert(
                "datacontenttype".to_owned(),
                self.content_type.as_str().into(),
            );
        }
        for (name, value) in &self.attributes {
            fields.insert(name.clone(), value.clone());
        }
        match &self.data {
            Data::None => None,
            Data::Json(data) => fields.insert("data".to_owned(), data.clone()),
            Data::Text(text) => fields.insert("data".to_owned(), text.as_str().into()),
            Data::Bytes(bytes) => {
                fields.insert("data_base64".to_owned(), STANDARD.encode(bytes).into())
            }
        };
        Value::Object(fields)
    }
}

fn text<'a>(by_name: &HeadersByName<'a>, header: &str) -> Result<Option<&'a str>, DecodeError> {
    let Some(bytes) = by_name.get(header) else {
        return Ok(None);
    };
    std::str::from_utf8(bytes)
        .map(Some)
        .map_err(|_| DecodeError(format!("header {header} is not UTF-8")))
}

fn binary(
    by_name: &HeadersByName<'_>,
    content_type: &str,
    payload: Option<&[u8]>,
) -> Result<ReceivedEvent, DecodeError> {
    let required = |header: &str| match text(by_name, header)? {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(DecodeError(format!("there is no header {header}"))),
    };
    let version = required("ce_specversion")?;
    if version != "1.0" {
        let problem = format!("ce_specversion is {version:?}, and 1.0 is what is read");
        return Err(DecodeError(problem));
    }
    let mut attributes = BTreeMap::new();
    for &header in by_name.keys() {
        let name = header.strip_prefix("ce_").unwrap_or_default();
        if !matches!(name, "" | "specversion" | "id" | "source" | "type")
            && let Some(value) = text(by_name, header)?
        {
            attributes.insert(name.to_owned(), value.into());
        }
    }
    Ok(ReceivedEvent {
        id: required("ce_id")?,
        source: required("ce_source")?,
        event_type: required("ce_type")?,
        attributes,
        content_type: content_type.to_owned(),
        data: data(content_type, payload)?,
    })
}

fn data(content_type: &str, payload: Option<&[u8]>) -> Result<Data, DecodeError> {
    let Some(payload) = payload else {
        return Ok(Data::None);
    };
    let media = content_type.split(';').next().unwrap_or_default().trim();
    // Without a type data are JSON, as in CloudEvents' JSON format.
    if media.is_empty() || media == "application/json" || media.ends_with("+json") {
        return serde_json::from_slice(payload)
            .map(Data::Json)
            .map_err(|error| DecodeError(format!("the data is not JSON: {error}")));
    }
    Ok(match std::str::from_utf8(payload) {
        Ok(text) => Data::Text(text.to_owned()),
        Err(_) => Data::Bytes(payload.to_vec()),
    })
}

fn structured(payload: &[u8]) -> Result<ReceivedEvent, DecodeError> {
    let mut fields: Map<String, Value> = serde_json::from_slice(payload)
        .map_err(|error| DecodeError(format!("the value is not a JSON object: {error}")))?;
    let mut required = |name: &str| match fields.remove(name) {
        Some(Value::String(value)) if !value.is_empty() => Ok(value),
        _ => Err(DecodeError(format!("there is no attribute {name}"))),
    };
    let version = required("specversion")?;
    if version != "1.0" {
        let problem = format!("specversion is {version:?}, and 1.0 is what is read");
        return Err(DecodeError(problem));
    }
    let (id, source, event_type) = (required("id")?, required("source")?, required("type")?);
    let content_type = match fields.remove("datacontenttype") {
        Some(Value::String(given)) => given,
        _ => String::new(),
    };
    let data = match (fields.remove("data"), fields.remove("data_base64")) {
        (Some(data), _) => Data::Json(data),
        (None, Some(Value::String(text))) => STANDARD
            .decode(text)
            .map(Data::Bytes)
            .map_err(|error| DecodeError(format!("data_base64: {error}")))?,
        (None, Some(_)) => return Err(DecodeError("data_base64 is not text".to_owned())),
        (None, None) => Data::None,
    };
    Ok(ReceivedEvent {
        id,
        source,
        event_type,
        attributes: fields.into_iter().collect(),
        content_type,
        data,
    })
}

#[cfg(test)]
mod tests {
    use ferroflow_types::id::EventId;
    use ferroflow_types::{CloudEvent, Timestamp};
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage, Timestamp as At};
    use serde_json::json;

    use super::super::binding::LoggedEvent;
    use super::*;

    /// Headers, a value, and what is said about them.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

    fn message(headers: OwnedHeaders, value: &str) -> OwnedMessage {
        OwnedMessage::new(
            Some(value.as_bytes().to_vec()),
            Some(b"default/7".to_vec()),
            "t".to_owned(),
            At::NotAvailable,
            0,
            0,
            Some(headers),
        )
    }

    fn headers(named: &[(&str, &str)]) -> OwnedHeaders {
        let empty = OwnedHeaders::new();
        named.iter().fold(empty, |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(*value),
            })
        })
    }

    #[test]
    fn what_the_relay_writes_is_read_as_it_was() {
        let event = CloudEvent {
            id: "00000000-0000-7000-8000-000000000001"
                .parse::<EventId>()
                .unwrap(),
            topic: "ferroflow.test.v1".to_owned(),
            event_type: "ai.ferroflow.run.created".to_owned(),
            source: "//ferroflow/test".to_owned(),
            subject: "namespaces/default/runs/\"7\"".to_owned(),
            namespace: "default".to_owned(),
            key: "default/7".to_owned(),
            sequence: 3,
            time: Timestamp::from_millis(250),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            authtype: Some("user".to_owned()),
            authid: Some("kim".to_owned()),
            data: json!({"n": [1, "ü"]}),
        };
        let text = serde_json::to_string(&event).unwrap();
        let logged = LoggedEvent::of(&text).unwrap();

        let read = ReceivedEvent::of(&message(logged.headers(), logged.value())).unwrap();

        let expected = json!({
            "specversion": "1.0", "id": event.id.to_string(), "source": event.source,
            "type": event.event_type, "subject": event.subject, "namespace": "default",
            "sequence": "3", "time": "1970-01-01T00:00:00.25Z", "partitionkey": event.key,
            "datacontenttype": "application/json", "traceparent": event.traceparent,
            "authtype": "user", "authid": "kim",
            "data": event.data,
        });
        assert_eq!(read.to_json(), expected);
    }

    #[test]
    fn structured_events_are_read_too() {
        let value = json!({
            "specversion": "1.0", "id": "a", "source": "/s", "type": "t", "n": 1,
            "datacontenttype": "text/plain", "data_base64": "AAE=",
        });
        let headers = headers(&[(
            "content-type",
            "application/cloudevents+json; charset=UTF-8",
        )]);

        let read = ReceivedEvent::of(&message(headers, &value.to_string())).unwrap();

        assert_eq!(read.data, Data::Bytes(vec![0, 1]));
        assert_eq!(read.to_json()["n"], 1);
        assert_eq!(read.attribute("partitionkey"), Some("default/7"));
    }

    #[test]
    fn what_is_no_event_says_why() {
        let ours = [
            ("ce_specversion", "1.0"),
            ("ce_id", "a"),
            ("ce_source", "/s"),
            ("ce_type", "t"),
        ];
        let structured = [("content-type", "application/cloudevents+json")];
        let cases: [Case<'_>; 6] = [
            (&[], "{}", "there is no header ce_specversion"),
            (
                &[("ce_specversion", "0.3")],
                "{}",
                "ce_specversion is \"0.3\"",
            ),
            (&ours[..3], "{}", "there is no header ce_type"),
            (&ours, "{", "the data is not JSON"),
            (&structured, "[]", "the value is not a JSON object"),
            (
                &structured,
                "{\"specversion\": \"1.0\"}",
                "there is no attribute id",
            ),
        ];
        for (named, value, expected) in cases {
            let error = ReceivedEvent::of(&message(headers(named), value)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
