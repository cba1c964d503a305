//! The flags of `up` and `serve`: the settings that are given on the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use ferroflow_service::{config, telemetry};
use serde_json::{Value, json};

use crate::config::{Config, InputsKind, RuntimeKind, without_nulls};

/// Settings come from flags, from `FERROFLOW_<SECTION>__<KEY>` variables (named below in brackets)
/// and from a TOML file, in this order of strength.
#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Folder of databases, artifacts, logs and environments [FERROFLOW_DATA_DIR; default
    /// ~/.ferroflow].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port of the gateway; port 0 picks a free one [FERROFLOW_GATEWAY__LISTEN; default
    /// 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// The largest value of a parameter in bytes, 65536 to 67108864 [FERROFLOW_VALUE_MAX; default
    /// 16777216].
    #[arg(long, value_name = "BYTES")]
    value_max: Option<u64>,
    /// The largest JSON body in bytes; 0 for what the largest value needs
    /// [FERROFLOW_GATEWAY__BODY_MAX; default 0].
    #[arg(long, value_name = "BYTES")]
    body_max: Option<usize>,
    /// A file of API keys, lines of `principal:sha256`; with it the gateway may listen anywhere
    /// [FERROFLOW_GATEWAY__API_KEYS_FILE; default none].
    #[arg(long, value_name = "FILE")]
    api_keys_file: Option<PathBuf>,
    /// Seconds between saying at /readyz that it stops and taking no further connections
    /// [FERROFLOW_GATEWAY__DRAIN_S; default 5 for `serve`, 0 for `up`].
    #[arg(long, value_name = "SECONDS")]
    drain_s: Option<u32>,
    /// A further host name that requests may name; repeat for several
    /// [FERROFLOW_GATEWAY__ALLOWED_HOSTS; default none beside loopback's].
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Where a gateway of its own finds pipeline-svc, for example http://pipeline-svc:9000; the host
    /// may have several addresses [FERROFLOW_GATEWAY__PIPELINE_SVC; default the socket in the data
    /// folder].
    #[arg(long, value_name = "URL")]
    pipeline_svc: Option<String>,
    /// Address and port of a pipeline-svc of its own [FERROFLOW_PIPELINES__LISTEN; default a socket
    /// in the data folder].
    #[arg(long, value_name = "ADDR:PORT")]
    pipelines_listen: Option<String>,
    /// The Ed25519 private key (PEM, PKCS#8) by which the gateway signs who calls
    /// [FERROFLOW_IDENTITY__PRIVATE_KEY_FILE; default a new key in one process with all].
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
    /// Its public key or certificate (PEM), by which services verify it
    /// [FERROFLOW_IDENTITY__PUBLIC_KEY_FILE; default that of the private key].
    #[arg(long, value_name = "FILE")]
    public_key_file: Option<PathBuf>,
    /// Commands that run at once; 0 for twice the cores [FERROFLOW_PIPELINES__PARALLEL_TASKS;
    /// default 0].
    #[arg(long, value_name = "COUNT")]
    parallel_tasks: Option<usize>,
    /// Runs that are driven at once [FERROFLOW_PIPELINES__ACTIVE_RUNS; default 200].
    #[arg(long, value_name = "COUNT")]
    active_runs: Option<usize>,
    /// A network beside public addresses to which the package_url of a version may lead, for example
    /// 10.1.0.0/16; repeat for several [FERROFLOW_PIPELINES__PACKAGE_NETWORKS; default none].
    #[arg(long, value_name = "NET")]
    package_network: Vec<String>,
    /// Where tasks run [FERROFLOW_RUNTIME; default process].
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<RuntimeKind>,
    #[command(flatten)]
    docker: crate::docker::Flags,
    /// How local processes reach their input artifacts: mounted read-only, or as copies of their own
    /// [FERROFLOW_PROCESSES__INPUTS; default auto, mounted where the system permits it].
    #[arg(long, value_name = "HOW")]
    process_inputs: Option<InputsKind>,
    /// Where artifacts are kept: an absolute path, or `s3://bucket/folder` unless tasks are processes
    /// [FERROFLOW_ARTIFACTS__URL; default <data dir>/artifacts].
    #[arg(long, value_name = "URL")]
    artifacts: Option<String>,
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
    /// The Python that environments are made with [FERROFLOW_PYTHON__INTERPRETER; default python3].
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
    /// Days that events are kept [FERROFLOW_EVENTS__RETENTION_DAYS; default 7].
    #[arg(long, value_name = "DAYS")]
    event_retention_days: Option<u32>,
    /// How logs look: auto, human or json [FERROFLOW_TELEMETRY__LOG_FORMAT; default auto].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<telemetry::LogFormat>,
    /// What is logged, for example `info,ferroflow_pipeline_svc=debug`
    /// [FERROFLOW_TELEMETRY__LOG_FILTER; default info].
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Where traces go, an OTLP gRPC endpoint [FERROFLOW_TELEMETRY__OTLP_ENDPOINT or
    /// OTEL_EXPORTER_OTLP_ENDPOINT; default nowhere].
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Where metrics are shown without a key, for example 127.0.0.1:9464
    /// [FERROFLOW_TELEMETRY__METRICS_LISTEN; default nowhere but `/metrics` of the gateway].
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<String>,
    /// A TOML file with these settings, for example `[gateway]` `listen = "127.0.0.1:9000"`.
    #[arg(long, value_name = "FILE", env = "FERROFLOW_CONFIG")]
    config: Option<PathBuf>,
    /// Writes the address to this file once the process is ready.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

impl Flags {
    /// The settings that all sources come to.
    pub(crate) fn load(&self) -> anyhow::Result<Config> {
        let mut config: Config = config::load(self.config.as_deref(), &self.given())?;
        if config.telemetry.otlp_endpoint.is_empty() {
            config.telemetry.otlp_endpoint =
                std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_default();
        }
        Ok(config)
    }

    /// Tells those who wait for it where the process listens.
    pub(crate) fn announce(&self, address: &str) -> anyhow::Result<()> {
        if let Some(file) = &self.port_file {
            std::fs::write(file, address)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    /// The flags that were given, in the shape of the settings.
    fn given(&self) -> Value {
        let hosts = (!self.allowed_host.is_empty()).then_some(&self.allowed_host);
        let networks = (!self.package_network.is_empty()).then_some(&self.package_network);
        without_nulls(json!({
            "data_dir": self.data_dir,
            "value_max": self.value_max,
            "gateway": {
                "listen": self.listen,
                "body_max": self.body_max,
                "allowed_hosts": hosts,
                "pipeline_svc": self.pipeline_svc,
                "api_keys_file": self.api_keys_file,
                "drain_s": self.drain_s,
            },
            "identity": {
                "private_key_file": self.private_key_file,
                "public_key_file": self.public_key_file,
            },
            "pipelines": {
                "listen": self.pipelines_listen,
                "parallel_tasks": self.parallel_tasks,
                "active_runs": self.active_runs,
                "caching": self.caching,
                "pipeline_root": self.pipeline_root,
                "time_zone": self.time_zone,
                "package_networks": networks,
            },
            "runtime": self.runtime,
            "docker": self.docker.given(),
            "processes": {"inputs": self.process_inputs},
            "artifacts": {"url": self.artifacts},
            "python": {"interpreter": self.python},
            "events": {"retention_days": self.event_retention_days},
            "telemetry": {
                "log_format": self.log_format,
                "log_filter": self.log_filter,
                "otlp_endpoint": self.otlp_endpoint,
                "metrics_listen": self.metrics_listen,
            },
        }))
    }
}
