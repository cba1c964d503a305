//! What a service publishes: CloudEvents 1.0, written in the transaction of the change.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::caller::Principal;
use crate::id::EventId;
use crate::name::Namespace;
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
    /// What kind of principal made the change, `user` or `service_account` (CloudEvents' Auth Context
    /// extension). Absent when the platform did it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authtype: Option<String>,
    /// The subject of that principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authid: Option<String>,
    /// The protobuf JSON of the event's message. Never secrets.
    pub data: serde_json::Value,
}

/// A service, as the source of events.
#[derive(Debug, Clone, Copy)]
pub struct Publisher {
    /// Its name, for example `pipeline-svc`.
    pub service: &'static str,
    /// What it is about, for example `pipelines`.
    pub domain: &'static str,
}

/// What an event is about.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The tenant.
    pub namespace: &'a Namespace,
    /// The path below the tenant, for example `runs/<id>/tasks/<id>`.
    pub path: String,
    /// The object whose events keep their order.
    pub key: String,
    /// Counts the events of the key, from 1.
    pub sequence: i64,
}

impl Publisher {
    /// The event `ai.ferroflow.<name>`, for example of `run.created`. Its id is derived from key and
    /// sequence: the same change told twice is one event.
    pub fn event(
        self,
        subject: Subject<'_>,
        name: &str,
        time: Timestamp,
        data: serde_json::Value,
    ) -> CloudEvent {
        let Subject {
            namespace,
            path,
            key,
            sequence,
        } = subject;
        let source = format!("//ferroflow/{}", self.service);
        let key = format!("{namespace}/{key}");
        // With the source, as two services may have the same key. A change of this would give
        // events that are published again new ids.
        let id_source = format!("{source}/{key}/{sequence}");
        CloudEvent {
            id: EventId::new(Uuid::new_v5(&Uuid::NAMESPACE_URL, id_source.as_bytes())),
            topic: format!("ferroflow.{}.v1", self.domain),
            event_type: format!("ai.ferroflow.{name}"),
            source,
            subject: format!("namespaces/{namespace}/{path}"),
            namespace: namespace.to_string(),
            key,
            sequence,
            time,
            traceparent: None,
            authtype: None,
            authid: None,
            data,
        }
    }
}

impl CloudEvent {
    /// The event as part of a trace.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: Option<String>) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// The event of a change that somebody asked for.
    #[must_use]
    pub fn with_principal(mut self, principal: &Principal) -> Self {
        let is_account = principal.subject.starts_with("system:serviceaccount:");
        let kind = if is_account {
            "service_account"
        } else {
            "user"
        };
        self.authtype = Some(kind.to_owned());
        self.authid = Some(principal.subject.clone());
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEST: Publisher = Publisher {
        service: "test-svc",
        domain: "tests",
    };

    fn event(key: &str, sequence: i64) -> CloudEvent {
        let subject = Subject {
            namespace: &"a".parse().unwrap(),
            path: format!("things/{key}"),
            key: key.to_owned(),
            sequence,
        };
        TEST.event(subject, "thing.made", Timestamp::from_millis(1), json!({}))
    }

    #[test]
    fn an_event_says_who_publishes_what_of_what() {
        let event = event("7", 1);

        assert_eq!(event.topic, "ferroflow.tests.v1");
        assert_eq!(event.source, "//ferroflow/test-svc");
        assert_eq!(event.event_type, "ai.ferroflow.thing.made");
        assert_eq!(event.subject, "namespaces/a/things/7");
        assert_eq!(event.key, "a/7");
    }

    #[test]
    fn the_same_change_told_twice_is_one_event() {
        assert_eq!(event("7", 1).id, event("7", 1).id);
        assert_ne!(event("7", 1).id, event("7", 2).id);
        assert_ne!(event("7", 1).id, event("8", 1).id);
    }

    #[test]
    fn an_event_says_whose_change_it_is_unless_it_is_nobodys() {
        let own = serde_json::to_value(event("7", 1)).unwrap();
        assert!(own.get("authid").is_none() && own.get("authtype").is_none());

        for (subject, kind) in [
            ("kim", "user"),
            ("system:serviceaccount:a:b", "service_account"),
        ] {
            let principal = Principal {
                subject: subject.to_owned(),
                groups: Vec::new(),
            };
            let event = event("7", 1).with_principal(&principal);
            assert_eq!(event.authtype.as_deref(), Some(kind));
            assert_eq!(event.authid.as_deref(), Some(subject));
        }
    }
}
