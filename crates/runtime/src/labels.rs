//! Labels by which pods and containers are found: those of an owner, that of an attempt.
//!
//! Attempts of pipelines have the labels that they had before there were other domains, which scripts
//! of users and servers of an earlier release go by.

use std::collections::BTreeMap;

use ferroflow_launcher::{AttemptKey, Domain, OwnerKey};

/// What the labels of one kind of object are called.
pub(crate) struct Labels {
    /// Those of attempts of pipelines.
    pub(crate) pipelines: Names,
    /// Those of all other attempts, which have the next two as well.
    pub(crate) other_domains: Names,
    pub(crate) domain: &'static str,
    pub(crate) namespace: &'static str,
}

/// What the parts of a key are called.
pub(crate) struct Names {
    pub(crate) owner: &'static str,
    pub(crate) item: &'static str,
    pub(crate) attempt: &'static str,
    /// The attempt's name for people, which is not part of the key.
    pub(crate) name: &'static str,
}

impl Labels {
    /// What the parts of a domain's keys are called.
    pub(crate) fn names(&self, domain: &Domain) -> &Names {
        if *domain == Domain::PIPELINES {
            &self.pipelines
        } else {
            &self.other_domains
        }
    }

    /// Whether a label is one of those that keys are read from.
    pub(crate) fn is_key_label(&self, label: &str) -> bool {
        let names = [&self.pipelines, &self.other_domains];
        let mut of_keys = names
            .into_iter()
            .flat_map(|names| [names.owner, names.item, names.attempt]);
        [self.domain, self.namespace].contains(&label) || of_keys.any(|name| name == label)
    }

    /// What all objects of an owner have, and no other one has all of.
    pub(crate) fn of_owner(&self, owner: &OwnerKey) -> BTreeMap<String, String> {
        let OwnerKey {
            domain,
            namespace,
            id,
        } = owner;
        let names = self.names(domain);
        let mut labels = BTreeMap::from([(names.owner.to_owned(), id.to_string())]);
        if *domain != Domain::PIPELINES {
            labels.insert(self.domain.to_owned(), domain.to_string());
            labels.insert(self.namespace.to_owned(), namespace.to_string());
        }
        labels
    }

    /// What the objects of an attempt have.
    pub(crate) fn of_attempt(&self, key: &AttemptKey) -> BTreeMap<String, String> {
        let names = self.names(&key.owner.domain);
        let mut labels = self.of_owner(&key.owner);
        labels.insert(names.item.to_owned(), key.item.to_string());
        labels.insert(names.attempt.to_owned(), key.attempt.to_string());
        labels
    }

    /// The labels of an owner as `name=value`.
    pub(crate) fn selectors(&self, owner: &OwnerKey) -> Vec<String> {
        let labels = self.of_owner(owner).into_iter();
        labels
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// The attempt that labels name, if they name one. Those of pipelines do not say the namespace, by
    /// which nothing of an attempt is found.
    pub(crate) fn attempt<'a>(
        &self,
        label: impl Fn(&str) -> Option<&'a String>,
    ) -> Option<AttemptKey> {
        let (domain, namespace) = match label(self.domain) {
            Some(domain) => (domain.parse().ok()?, label(self.namespace)?.parse().ok()?),
            None => (Domain::PIPELINES, ferroflow_types::Namespace::single_user()),
        };
        let names = self.names(&domain);
        let id = label(names.owner)?.parse().ok()?;
        let (item, attempt) = (
            label(names.item)?.parse().ok()?,
            label(names.attempt)?.parse().ok()?,
        );
        let owner = OwnerKey {
            domain,
            namespace,
            id,
        };
        Some(AttemptKey {
            owner,
            item,
            attempt,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{key, key_of};

    const LABELS: Labels = Labels {
        pipelines: Names {
            owner: "run",
            item: "task",
            attempt: "attempt",
            name: "task-name",
        },
        other_domains: Names {
            owner: "owner",
            item: "item",
            attempt: "attempt",
            name: "name",
        },
        domain: "domain",
        namespace: "namespace",
    };

    fn read(labels: &BTreeMap<String, String>) -> Option<AttemptKey> {
        LABELS.attempt(|name| labels.get(name))
    }

    #[test]
    fn the_attempt_is_read_back() {
        for key in [key("a", 1), key_of("tuning", "a", 3)] {
            let mut labels = LABELS.of_attempt(&key);
            assert_eq!(read(&labels), Some(key));
            // What else an object has does not matter, and a part that is missing does.
            labels.insert("other".to_owned(), "x".to_owned());
            assert!(read(&labels).is_some());
            labels.remove("attempt");
            assert_eq!(read(&labels), None);
        }
        assert_eq!(read(&BTreeMap::new()), None);
    }

    #[test]
    fn a_task_has_the_labels_that_it_always_had() {
        let labels = LABELS.of_attempt(&key("a", 1));
        let names: Vec<_> = labels.keys().map(String::as_str).collect();
        assert_eq!(names, ["attempt", "run", "task"]);
    }

    #[test]
    fn an_owner_is_not_found_by_the_labels_of_another_domain() {
        let domains = ["pipelines", "tuning", "serving"];
        let keys = domains.map(|domain| key_of(domain, "a", 1));
        for (at, one) in keys.iter().enumerate() {
            let selectors = LABELS.selectors(&one.owner);
            for (other_at, other) in keys.iter().enumerate() {
                let labels = LABELS.of_attempt(other);
                let has = |selector: &String| {
                    let (name, value) = selector.split_once('=').unwrap();
                    labels.get(name).is_some_and(|found| found == value)
                };
                assert_eq!(selectors.iter().all(has), at == other_at);
            }
        }
    }
}
