//! Settings of the service.

use ferroflow_service::service::Settings;
use ferroflow_types::Secret;
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

impl Settings for Config {
    fn listen(&self) -> &str {
        &self.listen
    }

    fn database(&self) -> &Secret {
        &self.database
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
        match self.parallel_tasks {
            0 => std::thread::available_parallelism().map_or(4, |cores| (2 * cores.get()).max(4)),
            given => given,
        }
    }
}
