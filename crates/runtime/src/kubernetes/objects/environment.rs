//! Environment variables of a pod's main container.

use ferroflow_launcher::pod::{ACCESS_KEY_ID, PodTask, SECRET_ACCESS_KEY, TASK};
use ferroflow_launcher::runtime_endpoint::RuntimeEndpoint;
use ferroflow_launcher::{AttemptKey, AttemptSpec};
use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, EnvVar, EnvVarSource, ObjectFieldSelector, SecretKeySelector,
};

use super::super::KubernetesConfig;
use super::super::platform::{Platform, named};
use super::ATTEMPT_DIR;

fn plain(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        value_from: None,
    }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn from_secret(name: &str, secret: &str, key: &str, optional: Option<bool>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: key.to_owned(),
                optional,
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// What the launcher of an attempt is told, or one that waits for an attempt; and what KFP promises
/// its components.
pub(super) fn launcher(
    key: Option<AttemptKey>,
    of_kfp: bool,
    config: &KubernetesConfig,
    runtime_endpoint: Option<RuntimeEndpoint>,
) -> Vec<EnvVar> {
    let task = PodTask {
        key,
        root: config.root.clone(),
        endpoint: config.endpoint.clone(),
        region: config.region.clone(),
        patience_s: config.store_patience_s,
        folder: ATTEMPT_DIR.into(),
        home: runtime_endpoint,
    };
    // A struct of texts and numbers has a JSON form.
    let task = serde_json::to_string(&task).unwrap_or_default();
    let mut env = vec![plain(TASK, escaped(&task))];
    if of_kfp {
        env.extend([
            from_field("KFP_POD_NAME", "metadata.name"),
            from_field("KFP_POD_UID", "metadata.uid"),
            from_field("NAMESPACE", "metadata.namespace"),
        ]);
    }
    if let Some(secret) = &config.store_secret {
        let key = |name, key| from_secret(name, secret, key, None);
        env.push(key(ACCESS_KEY_ID, "access-key-id"));
        env.push(key(SECRET_ACCESS_KEY, "secret-access-key"));
    }
    env
}

/// What the launcher is told, what the task declares, and what comes from secrets and config maps;
/// in the order in which later ones may refer to earlier ones.
pub(super) fn task(
    spec: &AttemptSpec,
    platform: &Platform,
    config: &KubernetesConfig,
    runtime_endpoint: Option<RuntimeEndpoint>,
) -> Vec<EnvVar> {
    let mut env = launcher(
        Some(spec.key.clone()),
        spec.kfp.is_some(),
        config,
        runtime_endpoint,
    );
    let retries = spec.kfp_retry_index();
    env.extend(retries.map(|(name, value)| plain(&name, value)));
    if let Some(traceparent) = &spec.traceparent {
        env.push(plain("TRACEPARENT", traceparent));
    }
    // The others would make the object larger than the API server takes.
    env.extend(spec.small_env().map(|(name, value)| plain(name, value)));
    for secret in &platform.secret_as_env {
        let Some(name) = named(secret.secret_name_parameter.as_ref(), &secret.secret_name) else {
            continue;
        };
        let keys = secret.key_to_env.iter();
        env.extend(
            keys.map(|key| from_secret(&key.env_var, &name, &key.secret_key, secret.optional)),
        );
    }
    env.extend(config_maps(platform));
    let fields = platform.field_path_as_env.iter();
    env.extend(fields.map(|field| from_field(&field.name, &field.field_path)));
    env
}

/// Kubernetes expands `$(NAME)` in values, and this one is to arrive as it is.
fn escaped(text: &str) -> String {
    text.replace("$(", "$$(")
}

fn config_maps(platform: &Platform) -> Vec<EnvVar> {
    let mut env = Vec::new();
    for map in &platform.config_map_as_env {
        let parameter = map.config_map_name_parameter.as_ref();
        let Some(name) = named(parameter, &map.config_map_name) else {
            continue;
        };
        for key in &map.key_to_env {
            let selector = ConfigMapKeySelector {
                name: name.clone(),
                key: key.config_map_key.clone(),
                optional: map.optional,
            };
            env.push(EnvVar {
                name: key.env_var.clone(),
                value: None,
                value_from: Some(EnvVarSource {
                    config_map_key_ref: Some(selector),
                    ..EnvVarSource::default()
                }),
            });
        }
    }
    env
}
