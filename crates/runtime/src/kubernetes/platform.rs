//! `kfp_kubernetes.KubernetesExecutorConfig` as it comes: canonical JSON, parameters resolved.
//!
//! A name that is a parameter arrives as the constant that it has, or null, and then the feature is
//! left out.

use std::collections::BTreeMap;

use ferroflow_launcher::AttemptSpec;
use serde::Deserialize;
use serde_json::Value;

/// What a task asks of its pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Platform {
    pub(super) secret_as_volume: Vec<AsVolume>,
    pub(super) secret_as_env: Vec<SecretAsEnv>,
    pub(super) config_map_as_volume: Vec<AsVolume>,
    pub(super) config_map_as_env: Vec<ConfigMapAsEnv>,
    pub(super) pvc_mount: Vec<PvcMount>,
    pub(super) node_selector: NodeSelector,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) node_affinity: Vec<NodeAffinity>,
    pub(super) pod_affinity: Vec<PodAffinity>,
    pub(super) pod_metadata: PodMetadata,
    pub(super) image_pull_secret: Vec<PullSecret>,
    pub(super) image_pull_policy: String,
    pub(super) generic_ephemeral_volume: Vec<Ephemeral>,
    pub(super) empty_dir_mounts: Vec<EmptyDir>,
    pub(super) field_path_as_env: Vec<FieldPath>,
    pub(super) active_deadline_seconds: Option<Value>,
    pub(super) security_context: Option<SecurityContext>,
    pub(super) enabled_shared_memory: Option<SharedMemory>,
    pub(super) init_containers: Vec<InitContainer>,
}

impl Platform {
    /// The settings of an attempt; one that is no component's has none.
    ///
    /// # Errors
    /// Names the member that cannot be understood.
    pub(super) fn of(spec: &AttemptSpec) -> Result<Self, String> {
        let Some(kfp) = &spec.kfp else {
            return Ok(Self::default());
        };
        serde_json::from_value(Value::Object(kfp.platform.clone()))
            .map_err(|error| format!("the task's Kubernetes settings: {error}"))
    }
}

/// A secret or a config map as files.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct AsVolume {
    pub(super) secret_name: String,
    pub(super) config_map_name: String,
    pub(super) secret_name_parameter: Option<Value>,
    pub(super) config_map_name_parameter: Option<Value>,
    pub(super) mount_path: String,
    pub(super) optional: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SecretAsEnv {
    pub(super) secret_name: String,
    pub(super) secret_name_parameter: Option<Value>,
    pub(super) key_to_env: Vec<SecretKey>,
    pub(super) optional: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SecretKey {
    pub(super) secret_key: String,
    pub(super) env_var: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct ConfigMapAsEnv {
    pub(super) config_map_name: String,
    pub(super) config_map_name_parameter: Option<Value>,
    pub(super) key_to_env: Vec<ConfigMapKey>,
    pub(super) optional: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct ConfigMapKey {
    pub(super) config_map_key: String,
    pub(super) env_var: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct PvcMount {
    pub(super) constant: String,
    pub(super) component_input_parameter: String,
    pub(super) pvc_name_parameter: Option<Value>,
    pub(super) mount_path: String,
    pub(super) sub_path: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct NodeSelector {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) node_selector_json: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Toleration {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) value: String,
    pub(super) effect: String,
    pub(super) toleration_seconds: Option<Value>,
    pub(super) toleration_json: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Expression {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) values: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct NodeAffinity {
    pub(super) match_expressions: Vec<Expression>,
    pub(super) match_fields: Vec<Expression>,
    pub(super) weight: Option<i32>,
    pub(super) node_affinity_json: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct PodAffinity {
    pub(super) match_pod_expressions: Vec<Expression>,
    pub(super) match_pod_labels: BTreeMap<String, String>,
    pub(super) topology_key: String,
    pub(super) namespaces: Vec<String>,
    pub(super) match_namespace_expressions: Vec<Expression>,
    pub(super) match_namespace_labels: BTreeMap<String, String>,
    pub(super) weight: Option<i32>,
    pub(super) anti: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct PodMetadata {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct PullSecret {
    pub(super) secret_name: String,
    pub(super) secret_name_parameter: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Ephemeral {
    pub(super) volume_name: String,
    pub(super) mount_path: String,
    pub(super) access_modes: Vec<String>,
    pub(super) size: String,
    pub(super) default_storage_class: bool,
    pub(super) storage_class_name: String,
    pub(super) metadata: PodMetadata,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct EmptyDir {
    pub(super) volume_name: String,
    pub(super) mount_path: String,
    pub(super) medium: Option<String>,
    pub(super) size_limit: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct FieldPath {
    pub(super) name: String,
    pub(super) field_path: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SecurityContext {
    pub(super) run_as_user: Option<Value>,
    pub(super) run_as_group: Option<Value>,
    pub(super) run_as_non_root: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct SharedMemory {
    pub(super) volume_name: String,
    pub(super) size: String,
}

/// A container that runs before the task, or beside it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct InitContainer {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<Variable>,
    pub(super) volume_mounts: Vec<Mount>,
    pub(super) restart_policy: Option<String>,
    pub(super) resources: Quantities,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) volume_name: String,
    pub(super) mount_path: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Quantities {
    pub(super) requests: BTreeMap<String, String>,
    pub(super) limits: BTreeMap<String, String>,
}

/// The name that a feature uses: its parameter's value, or what is written in it. `None` when the
/// parameter is null.
pub(super) fn named(parameter: Option<&Value>, written: &str) -> Option<String> {
    match parameter {
        Some(Value::String(name)) => Some(name.clone()),
        Some(Value::Null) => None,
        Some(other) => Some(other.to_string()),
        None if written.is_empty() => None,
        None => Some(written.to_owned()),
    }
}

/// A whole number, which canonical JSON writes as text when it has 64 bits.
pub(super) fn whole(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}
