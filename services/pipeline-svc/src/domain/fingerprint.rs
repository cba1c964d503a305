//! What a task's result is looked up by.
//!
//! As upstream's `CacheKey`, with two differences: the container's environment counts, because the
//! command can see it; and an input artifact counts by the digest of its content when that is
//! known, so that equal content from a task that was not cached still hits.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::domain::engine::node::Values;
use crate::domain::plan::{Body, Component};

/// Everything that a result depends on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CacheInputs {
    content: Value,
}

impl CacheInputs {
    /// What the result of `component` depends on, given resolved inputs without its defaults.
    pub(crate) fn of(component: &Component, inputs: &Values) -> Self {
        let artifacts: BTreeMap<_, Vec<_>> = inputs
            .artifacts
            .iter()
            .map(|(name, list)| {
                let identity = |artifact: &std::sync::Arc<crate::domain::artifact::Artifact>| {
                    let of_content = artifact.digest.clone();
                    let content = of_content.unwrap_or_else(|| format!("id:{}", artifact.id));
                    json!([content, artifact.schema_title, artifact.metadata])
                };
                (name, list.iter().map(identity).collect())
            })
            .collect();
        let output_artifacts: BTreeMap<_, _> = component
            .output_artifacts
            .iter()
            .map(|(name, decl)| {
                (
                    name,
                    json!([decl.kind.schema_title, decl.list, decl.metadata]),
                )
            })
            .collect();
        let output_parameters: BTreeMap<_, _> = component
            .output_parameters
            .iter()
            .map(|(name, kind)| (name, kind.noun()))
            .collect();
        let container = match &component.body {
            Body::Container(container) => json!({
                "image": container.image,
                "command": container.command,
                "args": container.args,
                "env": container.env,
                "claims": container.platform.get("pvcMount"),
            }),
            Body::Dag(_) | Body::Importer(_) => Value::Null,
        };
        let content = json!({
            "inputArtifacts": artifacts,
            "inputParameters": inputs.parameters,
            "outputArtifacts": output_artifacts,
            "outputParameters": output_parameters,
            "container": container,
        });
        Self { content }
    }
}

/// The fingerprint of a computation.
pub(crate) fn compute(inputs: &CacheInputs) -> String {
    // serde_json keeps the keys of objects sorted, so equal contents have equal texts.
    hex(&inputs.content.to_string())
}

/// The fingerprint that a pipeline's author chose; nothing else counts.
pub(crate) fn custom(component: &str, key: &str) -> String {
    hex(&format!("{component}\0{key}"))
}

fn hex(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_its_own_depends_on_component_and_key_only() {
        assert_eq!(custom("a", "k"), custom("a", "k"));
        assert_ne!(custom("a", "k"), custom("b", "k"));
        assert_ne!(custom("a", "bc"), custom("ab", "c"));
    }
}
