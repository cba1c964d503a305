//! `ferroflow up`: every service in one process, over one data folder.
//!
//! ```text
//! <data dir>/
//!   lock           held by the process that owns the folder; says which one
//!   pipelines.db   definitions, runs, tasks, artifacts
//!   events.db      the event log
//!   sockets/       gRPC between the services
//!   artifacts/     what tasks made
//!   attempts/      one folder per attempt: its log, its report
//!   workspaces/    folders that the tasks of a run share
//!   envs/          Python environments
//! ```

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ferroflow_artifacts::stores::{Secret, Stores};
use ferroflow_bus::kafka::KafkaRelay;
use ferroflow_bus::{Bus, Relay};
use ferroflow_gateway::Upstream;
use ferroflow_python_env::{PythonConfig, PythonEnvs};
use ferroflow_runtime::{
    KubernetesConfig, KubernetesRuntime, ProcessConfig, ProcessRuntime, Runtime,
};
use ferroflow_service::identity::Keys;
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::{self, Runner, TaskKind};
use ferroflow_service::{config, grpc, telemetry};
use ferroflow_types::Clock as _;
use ferroflow_types::time::SystemClock;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, RuntimeKind};

/// Settings come from flags, from `FERROFLOW_<SECTION>__<KEY>` variables (named below in brackets)
/// and from a TOML file, in this order of strength.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Folder of databases, artifacts, logs and environments [FERROFLOW_DATA_DIR; default
    /// ~/.ferroflow].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port of the gateway; port 0 picks a free one [FERROFLOW_GATEWAY__LISTEN; default
    /// 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// The largest JSON body in bytes [FERROFLOW_GATEWAY__BODY_MAX; default 8388608].
    #[arg(long, value_name = "BYTES")]
    body_max: Option<usize>,
    /// A further host name that requests may name; repeat for several
    /// [FERROFLOW_GATEWAY__ALLOWED_HOSTS; default none beside loopback's].
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// Commands that run at once; 0 for twice the cores [FERROFLOW_PIPELINES__PARALLEL_TASKS;
    /// default 0].
    #[arg(long, value_name = "COUNT")]
    parallel_tasks: Option<usize>,
    /// Runs that are driven at once [FERROFLOW_PIPELINES__ACTIVE_RUNS; default 200].
    #[arg(long, value_name = "COUNT")]
    active_runs: Option<usize>,
    /// Where tasks run [FERROFLOW_RUNTIME; default process].
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<RuntimeKind>,
    /// Where artifacts are kept: an absolute path, or `s3://bucket/folder`
    /// [FERROFLOW_ARTIFACTS__URL; default <data dir>/artifacts].
    #[arg(long, value_name = "URL")]
    artifacts: Option<String>,
    /// Whether results of earlier tasks may be reused [FERROFLOW_PIPELINES__CACHING; default true].
    #[arg(long, value_name = "BOOL")]
    caching: Option<bool>,
    /// Where artifacts go unless a run says otherwise, an absolute path or an `s3://` URI
    /// [FERROFLOW_PIPELINES__PIPELINE_ROOT; default where artifacts are kept].
    #[arg(long, value_name = "DIR")]
    pipeline_root: Option<String>,
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
    /// A TOML file with these settings, for example `[gateway]` `listen = "127.0.0.1:9000"`.
    #[arg(long, value_name = "FILE", env = "FERROFLOW_CONFIG")]
    config: Option<PathBuf>,
    /// Writes the address to this file once the platform is ready.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

impl Up {
    /// The flags that were given, in the shape of the settings.
    fn given(&self) -> Value {
        let hosts = (!self.allowed_host.is_empty()).then_some(&self.allowed_host);
        without_nulls(json!({
            "data_dir": self.data_dir,
            "gateway": {
                "listen": self.listen,
                "body_max": self.body_max,
                "allowed_hosts": hosts,
            },
            "pipelines": {
                "parallel_tasks": self.parallel_tasks,
                "active_runs": self.active_runs,
                "caching": self.caching,
                "pipeline_root": self.pipeline_root,
            },
            "runtime": self.runtime,
            "artifacts": {"url": self.artifacts},
            "python": {"interpreter": self.python},
            "events": {"retention_days": self.event_retention_days},
            "telemetry": {
                "log_format": self.log_format,
                "log_filter": self.log_filter,
                "otlp_endpoint": self.otlp_endpoint,
            },
        }))
    }
}

/// A flag that was not given must not hide what the file or the environment says.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        other => other,
    }
}

/// Starts everything and serves until a signal.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
pub(crate) async fn run(up: Up) -> anyhow::Result<()> {
    let mut config: Config = config::load(up.config.as_deref(), &up.given())?;
    if config.telemetry.otlp_endpoint.is_empty() {
        config.telemetry.otlp_endpoint = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
    }
    let _telemetry = telemetry::init("ferroflow", &config.telemetry)?;
    let data_dir = absolute(&config.data_dir)?;
    let _lock = lock(&data_dir)?;
    let mut runner = Runner::default();
    let address = start(&config, &data_dir, &mut runner).await?;
    if let Some(file) = &up.port_file {
        std::fs::write(file, address.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    tracing::info!(%address, data_dir = %data_dir.display(), "ready");
    println!("listening on http://{address}");
    let signal = async {
        if let Err(error) = runner::signal().await {
            tracing::error!(%error, "signals cannot be waited for");
        }
    };
    runner.run(signal).await.map_err(anyhow::Error::msg)
}

async fn start(
    config: &Config,
    data_dir: &Path,
    runner: &mut Runner,
) -> anyhow::Result<std::net::SocketAddr> {
    let metrics = Metrics::install().map_err(anyhow::Error::msg)?;
    let keys = Keys::generate()?;
    let bus = Bus::embedded(&database(&config.events.database, data_dir, "events.db")).await?;
    let stores = Stores::new(config.artifacts.s3.clone());
    let socket = data_dir.join("sockets/pipeline-svc.sock");
    let pipelines = ferroflow_pipeline_svc::start(
        &config.pipelines,
        ferroflow_pipeline_svc::Deps {
            database: database(&config.pipelines.database, data_dir, "pipelines.db"),
            runtime: runtime(config, data_dir, &stores).await?,
            kubernetes: config.runtime == RuntimeKind::Kubernetes,
            artifacts: match config.artifacts.url.as_str() {
                "" => data_dir.join("artifacts").display().to_string(),
                given => format!("{}/artifacts", given.trim_end_matches('/')),
            },
            stores,
            socket: socket.clone(),
            verifier: keys.verifier(ferroflow_pipeline_svc::NAME),
        },
        runner,
    )
    .await?;
    let relay = Relay::new(pipelines.db, bus.clone());
    let stop = runner.stopping();
    runner.spawn(TaskKind::Critical, "relay", relay_until(relay, stop));
    let stop = runner.stopping();
    let days = config.events.retention_days;
    runner.spawn(
        TaskKind::Helper,
        "event retention",
        prune_until(bus.clone(), days, stop),
    );
    if !config.events.kafka.brokers.is_empty() {
        let kafka = KafkaRelay::open(&config.events.kafka, bus.clone()).await?;
        let stop = runner.stopping();
        runner.spawn(TaskKind::Critical, "kafka", feed_until(kafka, stop));
    }
    let upstream = Upstream {
        name: ferroflow_pipeline_svc::NAME,
        services: ferroflow_pipeline_svc::SERVICES.to_vec(),
        channel: grpc::connect(socket),
    };
    let deps = ferroflow_gateway::Deps {
        upstreams: vec![upstream],
        bus,
        signer: keys.signer(),
        metrics: Some(metrics),
    };
    Ok(ferroflow_gateway::start(&config.gateway, deps, runner)
        .await?
        .address)
}

/// The URL of a service's database.
fn database(given: &Secret, data_dir: &Path, file: &str) -> String {
    match given.expose() {
        "" => format!("sqlite:{}", data_dir.join(file).display()),
        given => given.to_owned(),
    }
}

async fn runtime(
    config: &Config,
    data_dir: &Path,
    stores: &Stores,
) -> anyhow::Result<Arc<dyn Runtime>> {
    match config.runtime {
        RuntimeKind::Process => Ok(Arc::new(processes(config, data_dir)?)),
        RuntimeKind::Kubernetes => {
            let root = &config.artifacts.url;
            if !root.starts_with("s3://") {
                bail!(
                    "artifacts.url is {root:?}, and pods share no folder with this machine: give an \
                     s3:// URI"
                );
            }
            let settings = KubernetesConfig {
                root: root.clone(),
                endpoint: config.artifacts.s3.endpoint.clone(),
                region: config.artifacts.s3.region.clone(),
                ..config.kubernetes.clone()
            };
            if settings.launcher_image.is_empty() {
                bail!("kubernetes.launcher_image is empty: name an image with ferroflow-launcher");
            }
            let pods = KubernetesRuntime::connect(settings, stores.clone());
            let pods = pods.await.context("tasks cannot run as pods")?;
            Ok(Arc::new(pods))
        }
    }
}

fn processes(config: &Config, data_dir: &Path) -> anyhow::Result<ProcessRuntime> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let python = PythonConfig::new(
        data_dir.join("envs"),
        config.python.interpreter.clone(),
        std::env::vars(),
    );
    let processes = ProcessConfig {
        data_dir: data_dir.to_path_buf(),
        launcher: vec![program.into(), crate::LAUNCH.into()],
        path: variable("PATH"),
    };
    Ok(ProcessRuntime::new(processes, PythonEnvs::new(python)))
}

/// Relays events as they come; a database that is away is tried again.
async fn relay_until(relay: Relay, stop: CancellationToken) -> anyhow::Result<()> {
    const RETRY: Duration = Duration::from_secs(1);
    loop {
        let moved = match relay.tick().await {
            Ok(moved) => moved,
            Err(error) => {
                tracing::error!(%error, "events cannot be relayed, trying again");
                tokio::time::sleep(RETRY).await;
                0
            }
        };
        if moved > 0 {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = relay.wait() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Feeds Kafka; one that is away is tried again, and gets everything once it is back.
async fn feed_until(kafka: KafkaRelay, stop: CancellationToken) -> anyhow::Result<()> {
    const RETRY: Duration = Duration::from_secs(1);
    loop {
        let moved = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            moved = kafka.tick() => moved,
        };
        let wait: Pin<Box<dyn Future<Output = ()> + Send>> = match moved {
            Ok(0) => Box::pin(kafka.wait()),
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(error = %anyhow::Error::new(error), "Kafka does not take events, trying again");
                Box::pin(tokio::time::sleep(RETRY))
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = wait => {}
        }
    }
}

/// Forgets old events, some at a time.
async fn prune_until(bus: Bus, days: u32, stop: CancellationToken) -> anyhow::Result<()> {
    const PERIOD: Duration = Duration::from_mins(10);
    loop {
        let kept = i64::from(days) * 24 * 60 * 60 * 1000;
        while bus.prune(SystemClock.now().millis() - kept).await? > 0 {}
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// The folder with `~` resolved; it is made if it is not there.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let path = match path.strip_prefix("~") {
        Ok(rest) => {
            let home = std::env::home_dir().context("there is no home folder, use --data-dir")?;
            home.join(rest)
        }
        Err(_) => path.to_path_buf(),
    };
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("cannot use {}", path.display()))
}

/// Takes the data folder; two processes on one folder would run every step twice.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        let known = file.read_to_string(&mut holder).is_ok();
        let holder = if known { holder.trim() } else { "somebody" };
        bail!(
            "the data folder {} is in use by {holder}: stop it, or use another folder with \
             --data-dir",
            data_dir.display()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "ferroflow, process {}", std::process::id())?;
    Ok(file)
}
