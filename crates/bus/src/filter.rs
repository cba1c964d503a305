//! Which events a watcher wants.

use ferroflow_types::CloudEvent;
use serde::{Deserialize, Serialize};

/// All conditions must hold; an empty one always does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    /// The topic is one of these.
    pub topics: Vec<String>,
    /// The type is one of these.
    pub types: Vec<String>,
    /// The namespace is one of these.
    pub namespaces: Vec<String>,
    /// The subject is this path or one below it.
    pub subject_prefix: String,
}

impl EventFilter {
    /// Whether the event is wanted.
    pub fn matches(&self, event: &CloudEvent) -> bool {
        let among = |wanted: &[String], found: &str| {
            wanted.is_empty() || wanted.iter().any(|one| one == found)
        };
        among(&self.topics, &event.topic)
            && among(&self.types, &event.event_type)
            && among(&self.namespaces, &event.namespace)
            && self.subject_matches(&event.subject)
    }

    fn subject_matches(&self, subject: &str) -> bool {
        let prefix = self.subject_prefix.trim_end_matches('/');
        match subject.strip_prefix(prefix) {
            Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}
