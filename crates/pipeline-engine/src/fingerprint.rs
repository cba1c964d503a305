//! What a task's result is looked up by; `docs/caching.md` says it for users.
//!
//! As upstream's `CacheKey`, and more of what a command can see: its environment, its defaults, what
//! it is told of its run, what interprets it, and the content of its input artifacts, so that equal
//! content from a task that was not cached still hits and changed content at an old place does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::artifact::Artifact;
use crate::engine::inputs::fill_defaults;
use crate::engine::task::Values;
use crate::invocation::WORKSPACE;
use crate::placeholder::{self, TaskFacts};
use crate::plan::{Body, Component, Container};
use crate::task_config::TaskConfigSources;
use crate::{platform, task_config};

/// By what a result is looked up.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheKey {
    /// The fingerprint of the key that the pipeline's author chose; nothing else counts.
    Custom(String),
    /// What the result depends on.
    Computed(Box<CacheInputs>),
}

/// What a result depends on, as far as the run says it.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheInputs {
    content: Value,
    artifacts: BTreeMap<String, Vec<Arc<Artifact>>>,
    image: String,
    command: Vec<String>,
}

/// What a result depends on and only the world says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedContent {
    /// What input artifacts contain now, by their ids; without the ones that nobody can look at.
    pub contents: BTreeMap<i64, String>,
    /// What interprets the command, where its image does not bring that.
    pub interpreter: Option<String>,
}

impl CacheInputs {
    /// What the result of `component` depends on, given resolved inputs without its defaults;
    /// `platform` is what the task asks of Kubernetes, for a command that is told.
    pub(crate) fn of(
        component: &Component,
        inputs: &Values,
        facts: &TaskFacts,
        platform: impl FnOnce() -> Map<String, Value>,
    ) -> Self {
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
        let mut parameters = inputs.parameters.clone();
        fill_defaults(component, &mut parameters);
        // `IfPresent` tells a default from the same value that was given.
        let given: Vec<_> = inputs.parameters.keys().collect();
        let mut content = json!({
            "inputParameters": parameters,
            "givenParameters": given,
            "outputArtifacts": output_artifacts,
            "outputParameters": output_parameters,
        });
        let (mut image, mut command) = (String::new(), Vec::new());
        if let Body::Container(container) = &component.body {
            content["container"] = json!({
                "image": container.image,
                "command": container.command,
                "args": container.args,
                "env": container.env,
                "platform": platform::command_visible_platform(container),
            });
            content["facts"] = json!(facts_in(container, facts));
            if component.config_parameters().next().is_some() {
                // As written: what placeholders in it stand for is among the inputs.
                let sources = TaskConfigSources {
                    env: &container.env,
                    resources: &container.resources,
                    platform: &platform(),
                    workspace: None,
                };
                content["taskConfig"] = task_config::value(&component.passthroughs, &sources);
            }
            if reads_workspace(&content, inputs, facts) {
                content["workspaceOf"] = json!(facts.run_id);
            }
            image.clone_from(&container.image);
            command = [&container.command[..], &container.args[..]].concat();
        }
        Self {
            content,
            artifacts: inputs.artifacts.clone(),
            image,
            command,
        }
    }

    /// The input artifacts whose content counts.
    pub fn artifacts(&self) -> impl Iterator<Item = &Arc<Artifact>> {
        self.artifacts.values().flatten()
    }

    /// The image and the words of the command, placeholders in them unresolved.
    pub fn command(&self) -> (&str, &[String]) {
        (&self.image, &self.command)
    }
}

/// What a container's texts say of the run and the task that it is in.
fn facts_in(container: &Container, facts: &TaskFacts) -> BTreeMap<String, Value> {
    let texts = [&container.command, &container.args].into_iter().flatten();
    let values = container.env.iter().map(|(_, value)| value);
    let all = texts.chain(values).chain([&container.image]);
    all.flat_map(|text| placeholder::resolve_facts(text, facts))
        .collect()
}

/// Whether the command finds the folder that its run's tasks share: what is in there counts, and
/// nobody knows what that is.
fn reads_workspace(content: &Value, inputs: &Values, facts: &TaskFacts) -> bool {
    let Some(path) = &facts.workspace_path else {
        return false;
    };
    let text = content.to_string();
    let mut artifacts = inputs.artifacts.values().flatten();
    text.contains(WORKSPACE)
        || text.contains(path.as_str())
        || artifacts.any(|artifact| artifact.custom_path.is_some())
}

/// The fingerprint of a computation.
pub fn compute(inputs: &CacheInputs, observed: &ObservedContent) -> String {
    let identity = |artifact: &Arc<Artifact>| {
        // What the content is now comes before what was noted of it. Content that cannot be read here
        // (`gs://`, `oci://`) counts by the artifact's id.
        let noted = || artifact.digest.clone();
        let content = observed.contents.get(&artifact.id).cloned().or_else(noted);
        let content = content.unwrap_or_else(|| format!("id:{}", artifact.id));
        json!([content, artifact.schema_title, artifact.metadata])
    };
    let artifacts: BTreeMap<_, Vec<_>> = inputs
        .artifacts
        .iter()
        .map(|(name, list)| (name, list.iter().map(identity).collect()))
        .collect();
    // serde_json keeps the keys of objects sorted, so equal contents have equal texts.
    hex(&json!([inputs.content, artifacts, observed.interpreter]).to_string())
}

/// The fingerprint that a pipeline's author chose; nothing else counts.
pub(crate) fn custom(component: &str, key: &str) -> String {
    // Upstream's formula: the name of the component, a NUL byte, the key.
    hex(&format!("{component}\0{key}"))
}

fn hex(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests;
