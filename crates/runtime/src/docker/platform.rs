//! What a task asks of Kubernetes and a container of this machine can give.
//!
//! Secrets, claims and the like are refused before a runtime is asked (`platform` of the
//! pipeline engine); where a pod would run and what it is called means nothing here.

use ferroflow_launcher::AttemptSpec;
use serde::Deserialize;
use serde_json::Value;

/// The members of `KubernetesExecutorConfig` that containers follow. A task with others runs
/// without them and says so (`remarks`).
pub(super) const FOLLOWED: [&str; 4] = [
    "imagePullPolicy",
    "securityContext",
    "enabledSharedMemory",
    "fieldPathAsEnv",
];

/// The settings that count here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Platform {
    pub(super) image_pull_policy: String,
    pub(super) security_context: SecurityContext,
    pub(super) enabled_shared_memory: Option<SharedMemory>,
    pub(super) field_path_as_env: Vec<FieldPath>,
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

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SecurityContext {
    pub(super) run_as_user: Option<Value>,
    pub(super) run_as_group: Option<Value>,
    pub(super) run_as_non_root: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SharedMemory {
    pub(super) size: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FieldPath {
    pub(super) name: String,
    pub(super) field_path: String,
}
