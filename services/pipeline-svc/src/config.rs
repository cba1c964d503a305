//! Settings of the service.

use ferroflow_service::service::Settings;
use ferroflow_types::Secret;
use serde::{Deserialize, Serialize};

/// Settings of pipeline-svc.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Commands that run at once; twice the machine's cores, at least 4, unless given.
    #[serde(with = "ferroflow_types::unset::count")]
    pub parallel_tasks: Option<usize>,
    /// Runs that are driven at once; more wait, oldest first.
    pub active_runs: usize,
    /// Whether results of earlier tasks may be reused.
    pub caching: bool,
    /// Where artifacts go unless a run says otherwise: an absolute path or an `s3://` URI. Unless
    /// given, where artifacts are kept.
    #[serde(with = "ferroflow_types::unset::text")]
    pub pipeline_root: Option<String>,
    /// The time zone of cron expressions that name none (`CRON_TZ=`), by its IANA name.
    pub time_zone: String,
    /// Networks, as `10.1.0.0/16`, beside public addresses to which the `package_url` of a version may
    /// lead.
    pub package_networks: Vec<String>,
    /// The TCP address of its gRPC when it is a process of its own; a UNIX socket in the data
    /// folder unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub listen: Option<String>,
    /// A PostgreSQL URL; a file in the data folder unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub database: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            parallel_tasks: None,
            active_runs: 200,
            caching: true,
            pipeline_root: None,
            time_zone: "UTC".to_owned(),
            package_networks: Vec::new(),
            listen: None,
            database: None,
        }
    }
}

impl Settings for Config {
    fn listen(&self) -> Option<&str> {
        self.listen.as_deref()
    }

    fn database(&self) -> Option<&Secret> {
        self.database.as_ref()
    }
}

/// Those settings that can be given on the command line.
#[derive(Debug, clap::Args, Serialize)]
#[group(id = "pipelines-flags")]
pub struct Flags {
    /// Address and port of a pipeline-svc of its own [FERROFLOW_PIPELINES__LISTEN; default a socket
    /// in the data folder].
    #[arg(id = "pipelines-listen", long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Commands that run at once; 0 for twice the cores [FERROFLOW_PIPELINES__PARALLEL_TASKS;
    /// default 0].
    #[arg(long, value_name = "COUNT")]
    parallel_tasks: Option<usize>,
    /// Runs that are driven at once [FERROFLOW_PIPELINES__ACTIVE_RUNS; default 200].
    #[arg(long, value_name = "COUNT")]
    active_runs: Option<usize>,
    /// A network beside public addresses to which the package_url of a version may lead, for example
    /// 10.1.0.0/16; repeat for several [FERROFLOW_PIPELINES__PACKAGE_NETWORKS; default none].
    #[arg(long = "package-network", value_name = "NET")]
    package_networks: Option<Vec<String>>,
    /// Whether results of earlier tasks may be reused [FERROFLOW_PIPELINES__CACHING; default true].
    #[arg(long, value_name = "BOOL")]
    caching: Option<bool>,
    /// Where artifacts go unless a run says otherwise, an absolute path or (unless tasks are
    /// processes) an `s3://` URI [FERROFLOW_PIPELINES__PIPELINE_ROOT; default where artifacts are kept].
    #[arg(long, value_name = "DIR")]
    pipeline_root: Option<String>,
    /// The time zone of cron expressions that name none by `CRON_TZ=`, for example Europe/Berlin
    /// [FERROFLOW_PIPELINES__TIME_ZONE; default UTC].
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

impl Config {
    /// Commands that run at once.
    pub(crate) fn parallel_tasks(&self) -> usize {
        let cores = std::thread::available_parallelism();
        let usual = || cores.map_or(4, |cores| (2 * cores.get()).max(4));
        self.parallel_tasks.unwrap_or_else(usual)
    }
}
