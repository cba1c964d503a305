//! Who asks.

use serde::{Deserialize, Serialize};

/// The authenticated subject of a request, as the gateway found it and services verify it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
