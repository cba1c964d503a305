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
    /// The subject is this path or one below it. `namespaces/-/…` is below any namespace (AIP-159).
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
        if let Some(below) = prefix.strip_prefix(ANY_NAMESPACE) {
            let rest = subject.strip_prefix("namespaces/");
            let Some((_, rest)) = rest.and_then(|rest| rest.split_once('/')) else {
                return false;
            };
            return is_at_or_below(rest, below);
        }
        is_at_or_below(subject, prefix)
    }
}

/// What a subject prefix begins with that names no namespace.
const ANY_NAMESPACE: &str = "namespaces/-/";

fn is_at_or_below(subject: &str, prefix: &str) -> bool {
    match subject.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_at_a_path_or_below_it_in_one_namespace_or_in_any() {
        let matches = |prefix: &str, subject: &str| {
            let filter = EventFilter {
                subject_prefix: prefix.to_owned(),
                ..EventFilter::default()
            };
            filter.subject_matches(subject)
        };
        for (prefix, subject, expected) in [
            ("", "namespaces/a/runs/1", true),
            ("namespaces/a/runs/1", "namespaces/a/runs/1", true),
            ("namespaces/a/runs/1/", "namespaces/a/runs/1/tasks/2", true),
            ("namespaces/a/runs/1", "namespaces/a/runs/12", false),
            ("namespaces/a", "namespaces/ab/runs/1", false),
            ("namespaces/-/runs/1", "namespaces/a/runs/1", true),
            ("namespaces/-/runs/1", "namespaces/b/runs/1/tasks/2", true),
            ("namespaces/-/runs/1", "namespaces/b/runs/12", false),
            ("namespaces/-/runs", "namespaces/b", false),
            ("namespaces/-", "namespaces/b/runs/1", false),
        ] {
            assert_eq!(matches(prefix, subject), expected, "{prefix} {subject}");
        }
    }
}
