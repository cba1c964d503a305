//! Artifacts as tasks hand them on.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A stored artifact: what a consumer needs to know of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Unique in the installation; KFP's clients see it as an int64.
    pub id: i64,
    /// Its name: the output's, unless the component renamed it.
    pub name: String,
    /// For example `system.Model`.
    pub schema_title: String,
    /// For example `0.0.1`.
    pub schema_version: String,
    /// Where its content is.
    pub uri: String,
    /// What the component said of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// `sha256:…` over its content, when there was content to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What its content looked like when the digest was taken, if it is at a place of our own: it must
    /// not change there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<String>,
    /// The size of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// A path that replaces the one derived from the URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_path: Option<String>,
}

impl Artifact {
    /// Whether its values are what it is about, with or without a file.
    pub fn is_metrics(&self) -> bool {
        matches!(
            self.schema_title.as_str(),
            "system.Metrics"
                | "system.ClassificationMetrics"
                | "system.SlicedClassificationMetrics"
        )
    }
}
