//! `dsl.TaskConfig`: what a task asks of its pod, as a value that it may hand to a workload of its
//! own, for example a training job.
//!
//! A component's `taskConfigPassthroughs` name the parts that the value gets; its own pod gets these
//! only where `applyToTask` says so, and all others. Without passthroughs the pod gets everything.
//! The value has the field names of Kubernetes' pod specification. Ephemeral volumes, empty folders,
//! security context and image policy are never part of it. Reference: KFP `driver.go`, `k8s.go`.

mod parts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::plan::ResourceSpec;

/// A part of what a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConfigField {
    /// Requests and limits.
    Resources,
    /// Environment variables, those from secrets and config maps included.
    Env,
    /// Node and pod affinity.
    Affinity,
    /// Tolerations.
    Tolerations,
    /// The node selector.
    NodeSelector,
    /// Claims, secrets and config maps as files, and the run's workspace.
    Volumes,
}

impl ConfigField {
    /// By its name in the IR; `None` for `NONE`.
    ///
    /// # Errors
    /// When there is no such name.
    pub(crate) fn parse(name: &str) -> Result<Option<Self>, String> {
        Ok(Some(match name {
            "" | "NONE" => return Ok(None),
            "RESOURCES" => Self::Resources,
            "ENV" => Self::Env,
            "KUBERNETES_AFFINITY" => Self::Affinity,
            "KUBERNETES_TOLERATIONS" => Self::Tolerations,
            "KUBERNETES_NODE_SELECTOR" => Self::NodeSelector,
            "KUBERNETES_VOLUMES" => Self::Volumes,
            other => return Err(format!("unknown field {other:?}")),
        }))
    }

    /// The part that a member of `KubernetesExecutorConfig` belongs to.
    fn of_feature(feature: &str) -> Option<Self> {
        Some(match feature {
            "secretAsEnv" | "configMapAsEnv" | "fieldPathAsEnv" => Self::Env,
            "nodeAffinity" | "podAffinity" => Self::Affinity,
            "tolerations" => Self::Tolerations,
            "nodeSelector" => Self::NodeSelector,
            "pvcMount" | "secretAsVolume" | "configMapAsVolume" => Self::Volumes,
            _ => return None,
        })
    }
}

/// Which parts go into the value, and of these which go to the pod as well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Passthroughs(pub BTreeMap<ConfigField, bool>);

impl Passthroughs {
    /// Whether the task's own pod gets the part.
    pub(crate) fn on_task(&self, field: ConfigField) -> bool {
        self.0.get(&field).copied().unwrap_or(true)
    }

    /// What the task's own pod gets of a part.
    pub(crate) fn part_for_task<T: Default>(&self, field: ConfigField, part: T) -> T {
        if self.on_task(field) {
            part
        } else {
            T::default()
        }
    }

    fn passes(&self, field: ConfigField) -> bool {
        self.0.contains_key(&field)
    }

    /// Whether the task's own pod gets a member of `KubernetesExecutorConfig`.
    pub(crate) fn applies(&self, feature: &str) -> bool {
        ConfigField::of_feature(feature).is_none_or(|field| self.on_task(field))
    }

    /// What of the platform's settings the task's own pod gets.
    pub(crate) fn applied(&self, mut platform: Map<String, Value>) -> Map<String, Value> {
        platform.retain(|feature, _| self.applies(feature));
        platform
    }
}

/// What the value is made of; every parameter and placeholder resolved.
pub(crate) struct TaskConfigSources<'a> {
    /// Declared variables.
    pub env: &'a [(String, String)],
    /// Requests and limits.
    pub resources: &'a ResourceSpec,
    /// The executor's `KubernetesExecutorConfig`.
    pub platform: &'a Map<String, Value>,
    /// The claim of the run's workspace, if the task uses it, and its folder.
    pub workspace: Option<(String, String)>,
}

/// The value of a parameter of type `TASK_CONFIG`.
pub(crate) fn value(passthroughs: &Passthroughs, sources: &TaskConfigSources<'_>) -> Value {
    let part = |field: ConfigField, part: &dyn Fn() -> Value| {
        if passthroughs.passes(field) {
            part()
        } else {
            Value::Null
        }
    };
    // Upstream's struct always has an object here; parts that are not passed are null.
    let resources = match part(ConfigField::Resources, &|| {
        parts::resources(sources.resources)
    }) {
        Value::Null => json!({}),
        given => given,
    };
    let (volumes, mounts) = parts::volumes(sources);
    json!({
        "affinity": part(ConfigField::Affinity, &|| parts::affinity(sources.platform)),
        "tolerations": part(ConfigField::Tolerations, &|| parts::tolerations(sources.platform)),
        "nodeSelector": part(ConfigField::NodeSelector, &|| parts::node_selector(sources.platform)),
        "env": part(ConfigField::Env, &|| parts::env(sources)),
        "volumes": part(ConfigField::Volumes, &|| parts::list_or_null(volumes.clone())),
        "volumeMounts": part(ConfigField::Volumes, &|| parts::list_or_null(mounts.clone())),
        "resources": resources,
    })
}
