//! Who asks, and what they may.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, FieldViolation, Namespace};

/// The authenticated subject of a request, as the gateway found it and services verify it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// The subject: a user name, or `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
    /// The groups that the subject belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl Principal {
    /// The one user of a single-user installation.
    pub fn local() -> Self {
        Self {
            subject: "local".to_owned(),
            groups: Vec::new(),
        }
    }
}

/// The namespaces in which a caller may act.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Access {
    /// The single user's: everything is in [`Namespace::single_user`], whatever a request says of
    /// namespaces.
    SingleUser,
    /// These and no others.
    Namespaces(BTreeSet<Namespace>),
}

/// Who calls, and where they may act. A use case takes one, and what it reads is limited by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// Where they may act.
    pub access: Access,
}

/// What a query may find. A caller's is what they may see; what works for all callers has one of its
/// own.
pub trait Scope: Sync {
    /// Whether objects of the namespace may be found.
    fn covers(&self, namespace: &Namespace) -> bool;
}

impl Caller {
    /// The one user of a single-user installation.
    pub fn local() -> Self {
        Self {
            principal: Principal::local(),
            access: Access::SingleUser,
        }
    }

    /// The namespace that a list or a creation is in; `requested` is what the request says of it.
    ///
    /// # Errors
    /// Forbidden when it is none of the caller's; invalid when the request names none and the
    /// caller has not exactly one.
    pub fn namespace(&self, requested: &str) -> Result<Namespace, Error> {
        let allowed = match &self.access {
            // As upstream for one user: the SDK sends a namespace, and it is ignored.
            Access::SingleUser => return Ok(Namespace::single_user()),
            Access::Namespaces(allowed) => allowed,
        };
        if requested.is_empty() {
            let mut all = allowed.iter();
            if let (Some(only), None) = (all.next(), all.next()) {
                return Ok(only.clone());
            }
            let faults = vec![FieldViolation::new("namespace", "it is needed")];
            let message = "Invalid input error";
            return Err(Error::violations("NAMESPACE_MISSING", message, faults));
        }
        let known = allowed.iter().find(|one| one.as_str() == requested);
        known.cloned().ok_or_else(|| {
            let message = format!(
                "{} may not use namespace {requested:?}",
                self.principal.subject
            );
            Error::new(ErrorKind::Forbidden, "NAMESPACE_FORBIDDEN", message)
        })
    }
}

impl Scope for Caller {
    fn covers(&self, namespace: &Namespace) -> bool {
        match &self.access {
            Access::SingleUser => *namespace == Namespace::single_user(),
            Access::Namespaces(allowed) => allowed.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(names: &[&str]) -> Caller {
        Caller {
            principal: Principal::local(),
            access: Access::Namespaces(names.iter().map(|name| name.parse().unwrap()).collect()),
        }
    }

    #[test]
    fn the_single_user_acts_in_one_namespace_whatever_a_request_says() {
        let caller = Caller::local();
        for requested in ["", "a", "Not A Name"] {
            assert_eq!(
                caller.namespace(requested).unwrap(),
                Namespace::single_user()
            );
        }
        assert!(caller.covers(&Namespace::single_user()));
        assert!(!caller.covers(&"a".parse().unwrap()));
    }

    #[test]
    fn a_limited_caller_acts_where_it_may_and_nowhere_else() {
        let one = limited(&["a"]);
        assert_eq!(one.namespace("").unwrap().as_str(), "a");
        assert_eq!(one.namespace("a").unwrap().as_str(), "a");
        assert_eq!(one.namespace("b").unwrap_err().kind(), ErrorKind::Forbidden);
        assert!(one.covers(&"a".parse().unwrap()));
        assert!(!one.covers(&"b".parse().unwrap()));
        assert!(!one.covers(&Namespace::single_user()));

        let two = limited(&["a", "b"]);
        assert_eq!(two.namespace("b").unwrap().as_str(), "b");
        let missing = two.namespace("").unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Invalid);
        assert_eq!(missing.field_violations()[0].field, "namespace");

        let none = limited(&[]);
        assert!(none.namespace("").is_err());
        assert!(none.namespace("default").is_err());
    }
}
