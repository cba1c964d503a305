//! Settings of `ferroflow up`: every section of every service, in one file.

use std::path::PathBuf;

use ferroflow_service::telemetry::TelemetryConfig;
use serde::{Deserialize, Serialize};

/// All settings. Each can be given in `ferroflow.toml`, as `FERROFLOW_<SECTION>__<KEY>`, or as a
/// flag; later ones win.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// The front door.
    pub(crate) gateway: ferroflow_gateway::Config,
    /// Pipelines and runs.
    pub(crate) pipelines: ferroflow_pipeline_svc::Config,
    /// Environments of Python steps.
    pub(crate) python: Python,
    /// The event log.
    pub(crate) events: Events,
    /// Logs and traces.
    pub(crate) telemetry: TelemetryConfig,
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("~/.ferroflow"),
            gateway: ferroflow_gateway::Config::default(),
            pipelines: ferroflow_pipeline_svc::Config::default(),
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
        Self { retention_days: 7 }
    }
}
