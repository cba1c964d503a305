//! What a task asks of Kubernetes, seen by a runtime that is not Kubernetes.
//!
//! `KubernetesExecutorConfig` features fall into two groups. Where a pod runs and how it is
//! labelled (node selector, tolerations, affinity, metadata, pull secrets and policy, security
//! context) changes nothing for a local process. Secrets, config maps and volumes are inputs of the
//! command: without them it would do something else, so a task that needs one is refused.

use std::time::Duration;

use serde_json::Value;

use crate::domain::plan::Container;

/// Where a parameter of a feature comes from, in the scope around the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// An input of the DAG that the task is in.
    Parent(String),
    /// An output of a sibling, by its key.
    Task {
        /// The sibling's key.
        task: String,
        /// Its output parameter.
        output: String,
    },
}

/// Features that are inputs of the command, and their parameter that may be null (then the feature
/// is dropped).
const NEEDED: [(&str, &str); 8] = [
    ("secretAsVolume", "secretNameParameter"),
    ("secretAsEnv", "secretNameParameter"),
    ("configMapAsVolume", "configMapNameParameter"),
    ("configMapAsEnv", "configMapNameParameter"),
    ("pvcMount", "pvcNameParameter"),
    ("genericEphemeralVolume", ""),
    ("emptyDirMounts", ""),
    ("initContainers", ""),
];

/// Images that stand for operations of the Kubernetes API.
const OPERATIONS: [&str; 2] = ["argostub/createpvc", "argostub/deletepvc"];

/// Checks that a task can run without Kubernetes.
///
/// # Errors
/// A sentence that names the feature and the way out.
pub(crate) fn check_local(
    container: &Container,
    lookup: impl Fn(&Source) -> Option<Value>,
) -> Result<(), String> {
    if OPERATIONS.contains(&container.image.as_str()) {
        let image = &container.image;
        return Err(format!(
            "{image} creates or deletes a Kubernetes volume claim, which local processes do not \
             have: run this pipeline on Kubernetes"
        ));
    }
    for (feature, parameter) in NEEDED {
        let Some(Value::Array(uses)) = container.platform.get(feature) else {
            continue;
        };
        if uses.iter().any(|item| is_wanted(item, parameter, &lookup)) {
            return Err(format!(
                "platforms.kubernetes.deploymentSpec.executors.{}.{feature} needs Kubernetes, and \
                 this run uses local processes: remove it, or run this pipeline on Kubernetes",
                container.executor
            ));
        }
    }
    Ok(())
}

fn is_wanted(item: &Value, parameter: &str, lookup: impl Fn(&Source) -> Option<Value>) -> bool {
    let Some(input) = item.get(parameter) else {
        return true;
    };
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let found = if let Some(name) = text(input, "componentInputParameter") {
        lookup(&Source::Parent(name))
    } else if let Some(output) = input.get("taskOutputParameter") {
        let task = text(output, "producerTask").unwrap_or_default();
        let output = text(output, "outputParameterKey").unwrap_or_default();
        lookup(&Source::Task { task, output })
    } else {
        input.pointer("/runtimeValue/constant").cloned()
    };
    found.is_some_and(|value| !value.is_null())
}

/// How long an attempt may take, `activeDeadlineSeconds`.
pub(crate) fn timeout(container: &Container) -> Option<Duration> {
    let seconds = match container.platform.get("activeDeadlineSeconds")? {
        Value::String(text) => text.parse().ok()?,
        other => other.as_u64()?,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
