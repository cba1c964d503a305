//! What a task asks of Kubernetes, seen by a runtime that is not Kubernetes.
//!
//! `KubernetesExecutorConfig` features fall into two groups. Where a pod runs and how it is
//! labelled (node selector, tolerations, affinity, metadata, pull secrets and policy, security
//! context) changes nothing for a local process. Secrets, config maps and volumes are inputs of the
//! command: without them it would do something else, so a task that needs one is refused.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::plan::Container;
use crate::task_config::Passthroughs;

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
const CLUSTER_FEATURES: [(&str, &str); 8] = [
    ("secretAsVolume", "secretNameParameter"),
    ("secretAsEnv", "secretNameParameter"),
    ("configMapAsVolume", "configMapNameParameter"),
    ("configMapAsEnv", "configMapNameParameter"),
    ("pvcMount", "pvcNameParameter"),
    ("genericEphemeralVolume", ""),
    ("emptyDirMounts", ""),
    ("initContainers", ""),
];

/// What of a container's Kubernetes settings its command can see. Where and by whom it is run is not
/// among it.
pub(crate) fn command_visible_platform(container: &Container) -> Map<String, Value> {
    let needed = CLUSTER_FEATURES.iter().filter_map(|(feature, _)| {
        let found = container.platform.get(*feature)?;
        Some(((*feature).to_owned(), found.clone()))
    });
    needed.collect()
}

/// Images that stand for operations of the Kubernetes API.
const OPERATIONS: [&str; 2] = ["argostub/createpvc", "argostub/deletepvc"];

/// Checks that a task can run without Kubernetes.
///
/// # Errors
/// A sentence that names the feature and the way out.
pub(crate) fn check_local(
    container: &Container,
    passthroughs: &Passthroughs,
    lookup: impl Fn(&Source) -> Option<Value>,
) -> Result<(), String> {
    if OPERATIONS.contains(&container.image.as_str()) {
        let image = &container.image;
        return Err(format!(
            "{image} creates or deletes a Kubernetes volume claim, and this platform does not run \
             tasks on Kubernetes: use `--runtime kubernetes`"
        ));
    }
    // What the component only hands on, its own command does not need.
    let needed = CLUSTER_FEATURES
        .into_iter()
        .filter(|(feature, _)| passthroughs.applies(feature));
    for (feature, parameter) in needed {
        let Some(Value::Array(items)) = container.platform.get(feature) else {
            continue;
        };
        if items.iter().any(|item| is_wanted(item, parameter, &lookup)) {
            return Err(format!(
                "platforms.kubernetes.deploymentSpec.executors.{}.{feature} needs Kubernetes, and \
                 this platform does not run tasks there: remove it, or use `--runtime kubernetes`",
                container.executor
            ));
        }
    }
    Ok(())
}

fn is_wanted(item: &Value, parameter: &str, lookup: impl Fn(&Source) -> Option<Value>) -> bool {
    // A feature whose name is a parameter without a value is dropped, as upstream does. One without
    // such a parameter is always wanted.
    item.get(parameter)
        .is_none_or(|input| value_of(input, &lookup).is_some_and(|value| !value.is_null()))
}

/// The value of an `InputParameterSpec`.
fn value_of(input: &Value, lookup: impl Fn(&Source) -> Option<Value>) -> Option<Value> {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    if let Some(name) = text(input, "componentInputParameter") {
        lookup(&Source::Parent(name))
    } else if let Some(output) = input.get("taskOutputParameter") {
        let task = text(output, "producerTask").unwrap_or_default();
        let output = text(output, "outputParameterKey").unwrap_or_default();
        lookup(&Source::Task { task, output })
    } else {
        input.pointer("/runtimeValue/constant").cloned()
    }
}

/// Members that are parameters.
const PARAMETERS: [&str; 6] = [
    "secretNameParameter",
    "configMapNameParameter",
    "pvcNameParameter",
    "nodeSelectorJson",
    "tolerationJson",
    "nodeAffinityJson",
];

/// The platform's settings of a container with every parameter replaced by its value, null where it
/// has none.
pub(crate) fn resolve(
    container: &Container,
    lookup: impl Fn(&Source) -> Option<Value>,
) -> Map<String, Value> {
    let mut resolved = container.platform.clone();
    for feature in resolved.values_mut() {
        match feature {
            Value::Array(items) => items.iter_mut().for_each(|item| resolve_in(item, &lookup)),
            single => resolve_in(single, &lookup),
        }
    }
    if let Some(Value::Array(mounts)) = resolved.get_mut("pvcMount") {
        for mount in mounts {
            convert_old_mount(mount, &lookup);
        }
    }
    resolved
}

fn resolve_in(item: &mut Value, lookup: &impl Fn(&Source) -> Option<Value>) {
    let Value::Object(members) = item else {
        return;
    };
    for name in PARAMETERS {
        if let Some(input) = members.get_mut(name) {
            *input = value_of(input, lookup).unwrap_or_default();
        }
    }
}

/// A mount as older SDKs write it, in the words of newer ones.
fn convert_old_mount(mount: &mut Value, lookup: &impl Fn(&Source) -> Option<Value>) {
    const OLD_FIELDS: [&str; 2] = ["taskOutputParameter", "componentInputParameter"];
    let Value::Object(members) = mount else {
        return;
    };
    let old_fields: Map<String, Value> = OLD_FIELDS
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), members.remove(name)?)))
        .filter(|(_, value)| value.as_str() != Some(""))
        .collect();
    if !old_fields.is_empty() && !members.contains_key("pvcNameParameter") {
        let value = value_of(&Value::Object(old_fields), lookup).unwrap_or_default();
        members.insert("pvcNameParameter".to_owned(), value);
    }
}

/// Whether the image stands for an operation of the Kubernetes API, which has no command.
pub(crate) fn is_operation(image: &str) -> bool {
    OPERATIONS.contains(&image)
}

/// How long an attempt may take, `activeDeadlineSeconds`.
pub(crate) fn timeout(container: &Container) -> Option<Duration> {
    let seconds = match container.platform.get("activeDeadlineSeconds")? {
        // Protobuf's JSON writes 64-bit integers as texts.
        Value::String(text) => text.parse().ok()?,
        other => other.as_u64()?,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
