//! Settings of the platform: what is no service's own. `settings` has those of services as well.

use std::path::PathBuf;

use ferroflow_artifacts::stores::S3Config;
use ferroflow_bus::kafka::KafkaConfig;
use ferroflow_runtime::{DockerConfig, KubernetesConfig};
use ferroflow_service::telemetry::TelemetryConfig;
use ferroflow_types::{Secret, ValueLimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Settings of the platform. Each can be given in `ferroflow.toml`, as `FERROFLOW_<SECTION>__<KEY>`, or as a
/// flag; later ones win.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Bytes of the largest value of a parameter, and of an artifact's metadata. Everything that
    /// carries values has room for it.
    pub(crate) value_max: ValueLimit,
    /// Where the gateway listens, and who may call it.
    pub(crate) gateway: ferroflow_gateway::Config,
    /// The keys by which services know that a gateway calls.
    pub(crate) identity: Identity,
    /// Where tasks run.
    pub(crate) runtime: RuntimeKind,
    /// Where artifacts are kept.
    pub(crate) artifacts: Artifacts,
    /// Tasks as pods.
    pub(crate) kubernetes: KubernetesConfig,
    /// Tasks as containers.
    pub(crate) docker: DockerConfig,
    /// Tasks as processes.
    pub(crate) processes: Processes,
    /// Environments of Python steps.
    pub(crate) python: Python,
    /// The event log.
    pub(crate) events: Events,
    /// Logs and traces.
    pub(crate) telemetry: TelemetryConfig,
}

/// The keys by which services know that a gateway calls; keys of this process unless given.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Identity {
    /// A PEM file with the Ed25519 private key (PKCS#8) that gateways sign with.
    #[serde(with = "ferroflow_types::unset::text")]
    pub(crate) private_key_file: Option<String>,
    /// A PEM file with its public key, or with a certificate of it, that services verify with.
    #[serde(with = "ferroflow_types::unset::text")]
    pub(crate) public_key_file: Option<String>,
}

/// Where tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuntimeKind {
    /// Local processes.
    #[default]
    Process,
    /// Containers of this machine's Docker engine.
    Docker,
    /// Pods of the cluster that the environment names.
    Kubernetes,
}

/// Where artifacts are kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Artifacts {
    /// `s3://bucket/folder`, or an absolute path; the data folder unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub(crate) url: Option<String>,
    /// How S3 is reached.
    pub(crate) s3: S3Config,
}

/// Settings of tasks as processes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Processes {
    /// How they reach their inputs.
    pub(crate) inputs: InputsKind,
}

/// How processes reach artifacts that they read and may not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InputsKind {
    /// Mounted read-only where the system permits it, else copied.
    #[default]
    Auto,
    /// Mounted read-only.
    Mount,
    /// Copied for every attempt.
    Copy,
}

/// Settings of Python environments.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Python {
    /// The interpreter that environments are made with.
    pub(crate) interpreter: String,
}

/// Settings of the event log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Events {
    /// Days that events are kept.
    pub(crate) retention_days: u32,
    /// A PostgreSQL URL for the log; a file in the data folder unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub(crate) database: Option<Secret>,
    /// The brokers that events are sent to as well; none unless given.
    pub(crate) kafka: KafkaConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("~/.ferroflow"),
            value_max: ValueLimit::default(),
            gateway: ferroflow_gateway::Config::default(),
            identity: Identity::default(),
            runtime: RuntimeKind::default(),
            artifacts: Artifacts::default(),
            kubernetes: KubernetesConfig::default(),
            docker: DockerConfig::default(),
            processes: Processes::default(),
            python: Python::default(),
            events: Events::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Default for Python {
    fn default() -> Self {
        Self {
            interpreter: "python3".to_owned(),
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            retention_days: 7,
            database: None,
            kafka: KafkaConfig::default(),
        }
    }
}

/// A flag that was not given must not hide what the file or the environment says.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        other => other,
    }
}
