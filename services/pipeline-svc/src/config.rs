//! Settings of the service.

use ferroflow_artifacts::stores::Secret;
use serde::{Deserialize, Serialize};

/// Settings of pipeline-svc.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Commands that run at once; 0 for twice the machine's cores, at least 4.
    pub parallel_tasks: usize,
    /// Runs that are driven at once; more wait, oldest first.
    pub active_runs: usize,
    /// Whether results of earlier tasks may be reused.
    pub caching: bool,
    /// Where artifacts go unless a run says otherwise: an absolute path or an `s3://` URI; empty for
    /// where artifacts are kept.
    pub pipeline_root: String,
    /// The time zone of cron expressions that name none (`CRON_TZ=`), by its IANA name.
    pub time_zone: String,
    /// Networks, as `10.1.0.0/16`, beside public addresses to which the `package_url` of a version may
    /// lead.
    pub package_networks: Vec<String>,
    /// The TCP address of its gRPC when it is a process of its own; empty for a UNIX socket in the
    /// data folder.
    pub listen: String,
    /// A PostgreSQL URL; empty for a file in the data folder.
    pub database: Secret,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            parallel_tasks: 0,
            active_runs: 200,
            caching: true,
            pipeline_root: String::new(),
            time_zone: "UTC".to_owned(),
            package_networks: Vec::new(),
            listen: String::new(),
            database: Secret::default(),
        }
    }
}

impl Config {
    /// Commands that run at once.
    pub(crate) fn parallel_tasks(&self) -> usize {
        match self.parallel_tasks {
            0 => std::thread::available_parallelism().map_or(4, |cores| (2 * cores.get()).max(4)),
            given => given,
        }
    }
}
