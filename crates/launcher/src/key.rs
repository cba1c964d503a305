//! Which attempt: of which domain, of whom, of what, and how often it was tried before.
//!
//! Names of folders, pods and containers are functions of the key. Those of pipelines are what they
//! were when there was no other domain; all others begin with their domain, so that no two domains
//! meet, whatever their ids are.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use ferroflow_types::Namespace;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest domain: `ff-<domain>-<UUID>-<attempt>` is the name of a pod, and with any 32-bit number
/// it fits a label of 63 characters (RFC 1123).
const DOMAIN_MAX: usize = 12;

/// Text that is not a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDomain(String);

impl fmt::Display for InvalidDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        write!(
            f,
            "domain: {text:?} is not 1 to {DOMAIN_MAX} of a-z and 0-9, the first a letter"
        )
    }
}

impl std::error::Error for InvalidDomain {}

/// The domain of a service, as its events and settings name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Cow<'static, str>);

impl Domain {
    /// The one whose attempts are older than the notion of a domain.
    pub const PIPELINES: Self = Self(Cow::Borrowed("pipelines"));

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = InvalidDomain;

    fn from_str(text: &str) -> Result<Self, InvalidDomain> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Domain {
    type Error = InvalidDomain;

    fn try_from(text: String) -> Result<Self, InvalidDomain> {
        // Without hyphens it cannot be taken for a UUID, which stands in its place in older names.
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if begins && text.len() <= DOMAIN_MAX && text.bytes().all(inside) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidDomain(text))
        }
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0.into_owned()
    }
}

/// What attempts belong to, and with what they are forgotten: a run, a trial, a notebook.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerKey {
    /// The domain of its service.
    pub domain: Domain,
    /// The tenant that it is in.
    pub namespace: Namespace,
    /// Its id.
    pub id: Uuid,
}

impl OwnerKey {
    /// Its folder among those of all owners.
    pub fn folder(&self) -> String {
        self.join('/')
    }

    /// What names of objects of a cluster or an engine have of it.
    pub fn name(&self) -> String {
        self.join('-')
    }

    fn join(&self, between: char) -> String {
        self.of_domain(between, &self.id.to_string())
    }

    /// `rest`, behind the domain unless that is the oldest one.
    fn of_domain(&self, between: char, rest: &str) -> String {
        if self.domain == Domain::PIPELINES {
            rest.to_owned()
        } else {
            format!("{}{between}{rest}", self.domain)
        }
    }
}

/// Which attempt of which item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "SerializedKey", into = "SerializedKey")]
pub struct AttemptKey {
    /// Whose attempt it is.
    pub owner: OwnerKey,
    /// What of the owner is attempted: a task of a run, a trial's command, a server process.
    pub item: Uuid,
    /// The attempt, from 1.
    pub attempt: u32,
}

impl AttemptKey {
    /// Stands for all attempts of an owner in an error that names one; none has number 0.
    pub fn of_owner(owner: &OwnerKey) -> Self {
        Self {
            owner: owner.clone(),
            item: owner.id,
            attempt: 0,
        }
    }

    /// Its folder among those of all attempts.
    pub fn folder(&self) -> String {
        let Self {
            owner,
            item,
            attempt,
        } = self;
        format!("{}/{item}/{attempt}", owner.folder())
    }

    /// What names of objects of a cluster or an engine have of it.
    pub fn name(&self) -> String {
        let rest = format!("{}-{}", self.item, self.attempt);
        self.owner.of_domain('-', &rest)
    }
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.folder())
    }
}

/// A key in `spec.json` and in what a launcher is told.
///
/// Releases up to 0.1 know the first form only. A key of pipelines keeps it, since during an upgrade
/// either release reads what the other one wrote. They refuse the second form instead of taking it for
/// a task of a run.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SerializedKey {
    Task {
        run: Uuid,
        task: Uuid,
        attempt: u32,
        /// Not written for the only one that the first form had.
        #[serde(
            default = "Namespace::single_user",
            skip_serializing_if = "is_single_user"
        )]
        namespace: Namespace,
    },
    Item {
        domain: Domain,
        namespace: Namespace,
        owner: Uuid,
        item: Uuid,
        attempt: u32,
    },
}

fn is_single_user(namespace: &Namespace) -> bool {
    *namespace == Namespace::single_user()
}

impl From<AttemptKey> for SerializedKey {
    fn from(key: AttemptKey) -> Self {
        let AttemptKey {
            owner,
            item,
            attempt,
        } = key;
        let OwnerKey {
            domain,
            namespace,
            id,
        } = owner;
        if domain == Domain::PIPELINES {
            Self::Task {
                run: id,
                task: item,
                attempt,
                namespace,
            }
        } else {
            Self::Item {
                domain,
                namespace,
                owner: id,
                item,
                attempt,
            }
        }
    }
}

impl From<SerializedKey> for AttemptKey {
    fn from(written: SerializedKey) -> Self {
        let (domain, namespace, id, item, attempt) = match written {
            SerializedKey::Task {
                run,
                task,
                attempt,
                namespace,
            } => (Domain::PIPELINES, namespace, run, task, attempt),
            SerializedKey::Item {
                domain,
                namespace,
                owner,
                item,
                attempt,
            } => (domain, namespace, owner, item, attempt),
        };
        let owner = OwnerKey {
            domain,
            namespace,
            id,
        };
        Self {
            owner,
            item,
            attempt,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const RUN: &str = "3de0bf28-871f-4b30-a13f-73c479b8f540";
    const TASK: &str = "7d23f721-c3c1-5b7e-aa29-fe9c8e16fab3";

    fn key(domain: &str, namespace: &str) -> AttemptKey {
        AttemptKey {
            owner: OwnerKey {
                domain: domain.parse().unwrap(),
                namespace: namespace.parse().unwrap(),
                id: RUN.parse().unwrap(),
            },
            item: TASK.parse().unwrap(),
            attempt: 2,
        }
    }

    /// As release 0.1 declares it.
    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Former {
        run: Uuid,
        task: Uuid,
        attempt: u32,
    }

    #[test]
    fn names_of_pipelines_are_what_they_were() {
        let key = key("pipelines", "default");

        assert_eq!(key.folder(), format!("{RUN}/{TASK}/2"));
        assert_eq!(key.to_string(), key.folder());
        assert_eq!(key.name(), format!("{TASK}-2"));
        assert_eq!(key.owner.folder(), RUN);
        assert_eq!(key.owner.name(), RUN);
    }

    #[test]
    fn domains_with_the_same_ids_do_not_meet() {
        let keys = ["pipelines", "tuning", "notebooks"].map(|domain| key(domain, "default"));

        for names in [
            keys.each_ref().map(AttemptKey::folder),
            keys.each_ref().map(AttemptKey::name),
            keys.each_ref().map(|key| key.owner.folder()),
            keys.each_ref().map(|key| key.owner.name()),
        ] {
            let different: BTreeSet<_> = names.iter().collect();
            assert_eq!(different.len(), keys.len(), "{names:?}");
        }
        assert_eq!(keys[1].folder(), format!("tuning/{RUN}/{TASK}/2"));
        assert_eq!(keys[1].name(), format!("tuning-{TASK}-2"));
    }

    #[test]
    fn the_longest_name_is_a_label() {
        let mut key = key("abcdefghijkl", "default");
        key.attempt = u32::MAX;
        assert!(format!("ff-{}", key.name()).len() <= 63);
    }

    #[test]
    fn either_release_reads_a_key_of_pipelines_that_the_other_one_wrote() {
        let ours = key("pipelines", "default");
        let text = format!(r#"{{"run":"{RUN}","task":"{TASK}","attempt":2}}"#);

        assert_eq!(serde_json::to_string(&ours).unwrap(), text);
        assert_eq!(serde_json::from_str::<AttemptKey>(&text).unwrap(), ours);
        let former: Former = serde_json::from_str(&text).unwrap();
        assert_eq!(former.run, ours.owner.id);
        // With tenants it reads the same, beside what it does not know.
        let ours = key("pipelines", "team-a");
        let text = serde_json::to_string(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Former>(&text).unwrap(), former);
        assert_eq!(serde_json::from_str::<AttemptKey>(&text).unwrap(), ours);
    }

    #[test]
    fn a_former_release_refuses_a_key_of_another_domain() {
        let ours = key("tuning", "team-a");
        let text = serde_json::to_string(&ours).unwrap();

        assert_eq!(serde_json::from_str::<AttemptKey>(&text).unwrap(), ours);
        assert!(serde_json::from_str::<Former>(&text).is_err());
    }

    #[test]
    fn a_domain_cannot_be_taken_for_an_id_or_a_path() {
        for good in ["pipelines", "a", "s3", "deadbeef", "abcdefghijkl"] {
            assert!(good.parse::<Domain>().is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", "a-b", "3a", "A", "abcdefghijklm", RUN] {
            let refused = bad.parse::<Domain>().unwrap_err().to_string();
            assert!(refused.starts_with("domain: "), "{refused}");
            let text = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<Domain>(&text).is_err(), "{bad}");
        }
    }
}
