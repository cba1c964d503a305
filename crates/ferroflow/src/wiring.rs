//! How services are put together out of settings; the same for one process with all and for
//! processes of their own.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use ferroflow_artifacts::stores::{Secret, Stores};
use ferroflow_bus::Bus;
use ferroflow_gateway::{Upstream, Way};
use ferroflow_python_env::{PythonConfig, PythonEnvs};
use ferroflow_runtime::{
    Inputs, KubernetesConfig, KubernetesRuntime, ProcessConfig, ProcessRuntime, Runtime,
};
use ferroflow_service::grpc::{self, Replicas};
use ferroflow_service::identity::{Keys, PublicKey, Signer};
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::{self, Runner};

use crate::config::{Config, Identity, InputsKind, Python, RuntimeKind};
use crate::{folder, relays};

/// The data folder of this process.
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    /// What this process is called among others on one database.
    pub(crate) replica: String,
    _lock: File,
}

impl Place {
    /// Takes the folder; two processes on one would run every step twice.
    pub(crate) fn lock(config: &Config) -> anyhow::Result<Self> {
        let data_dir = folder::absolute(&config.data_dir)?;
        let lock = folder::lock(&data_dir)?;
        let replica = folder::replica(&data_dir)?;
        Ok(Self {
            data_dir,
            replica,
            _lock: lock,
        })
    }

    /// What this process's instance of a service is called among others on one database.
    pub(crate) fn instance(&self, service: &str) -> String {
        format!("{}/{service}", self.replica)
    }
}

/// The keys of a process that signs and verifies.
pub(crate) fn own_keys(identity: &Identity) -> anyhow::Result<Keys> {
    match identity.private_key_file.as_str() {
        "" => Ok(Keys::generate()?),
        file => shared_keys(file),
    }
}

/// The keys that gateways share.
pub(crate) fn shared_keys(file: &str) -> anyhow::Result<Keys> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("identity.private_key_file: cannot read {file}"))?;
    Keys::from_pem(&text).with_context(|| format!("identity.private_key_file {file}"))
}

/// The key by which services verify what gateways sign.
pub(crate) fn public_key(identity: &Identity) -> anyhow::Result<PublicKey> {
    match (
        identity.public_key_file.as_str(),
        identity.private_key_file.as_str(),
    ) {
        ("", "") => bail!(
            "identity.public_key_file is empty, and gateways are processes of their own: name the \
             public key (or certificate) of the private key that they sign with"
        ),
        ("", private) => Ok(shared_keys(private)?.public()),
        (file, _) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("identity.public_key_file: cannot read {file}"))?;
            PublicKey::from_pem(&text).with_context(|| format!("identity.public_key_file {file}"))
        }
    }
}

/// The event log that this process writes.
pub(crate) async fn bus(config: &Config, data_dir: &Path) -> anyhow::Result<Bus> {
    let url = database(&config.events.database, data_dir, "events.db");
    Bus::embedded(&url).await.context("events.database")
}

/// The event log that other processes write as well.
pub(crate) async fn shared_bus(config: &Config, data_dir: &Path) -> anyhow::Result<Bus> {
    let url = database(&config.events.database, data_dir, "events.db");
    Bus::shared(&url).await.context("events.database")
}

/// Starts pipeline-svc, and what moves its events to the log.
pub(crate) async fn pipelines(
    config: &Config,
    place: &Place,
    bus: &Bus,
    public_key: PublicKey,
    runner: &mut Runner,
) -> anyhow::Result<ferroflow_pipeline_svc::Handle> {
    let data_dir = &place.data_dir;
    let stores = Stores::new(config.artifacts.s3.clone());
    let deps = ferroflow_pipeline_svc::Deps {
        database: database(&config.pipelines.database, data_dir, "pipelines.db"),
        runtime: runtime(config, data_dir, &stores).await?,
        kubernetes: config.runtime == RuntimeKind::Kubernetes,
        artifacts: match config.artifacts.url.as_str() {
            "" => data_dir.join("artifacts").display().to_string(),
            given => format!("{}/artifacts", given.trim_end_matches('/')),
        },
        stores,
        socket: socket(data_dir),
        replica: place.replica.clone(),
        verifier: public_key.verifier(ferroflow_pipeline_svc::NAME),
        values: config.value_max,
    };
    let handle = ferroflow_pipeline_svc::start(&config.pipelines, deps, runner).await?;
    let instance = place.instance(ferroflow_pipeline_svc::NAME);
    relays::start_relay("relay/pipelines", handle.db.clone(), bus, &instance, runner);
    Ok(handle)
}

/// The way to pipeline-svc.
pub(crate) fn way(config: &Config, data_dir: &Path) -> anyhow::Result<Way> {
    match config.gateway.pipeline_svc.as_str() {
        "" => Ok(Way::One(grpc::connect(socket(data_dir)))),
        uri => {
            let message_max = config.value_max.message();
            let replicas = Replicas::connect(uri, message_max).map_err(anyhow::Error::msg);
            Ok(Way::Several(replicas.context("gateway.pipeline_svc")?))
        }
    }
}

/// Starts a gateway.
pub(crate) async fn gateway(
    config: &Config,
    way: Way,
    bus: Bus,
    signer: Signer,
    metrics: Metrics,
    runner: &mut Runner,
) -> anyhow::Result<ferroflow_gateway::Handle> {
    let upstream = Upstream {
        name: ferroflow_pipeline_svc::NAME,
        services: ferroflow_pipeline_svc::SERVICES.to_vec(),
        way,
    };
    let deps = ferroflow_gateway::Deps {
        upstreams: vec![upstream],
        bus,
        signer,
        metrics: Some(metrics),
        values: config.value_max,
    };
    Ok(ferroflow_gateway::start(&config.gateway, deps, runner).await?)
}

/// Runs until a signal, then stops.
pub(crate) async fn until_signal(runner: Runner) -> anyhow::Result<()> {
    let signal = async {
        if let Err(error) = runner::signal().await {
            tracing::error!(%error, "signals cannot be waited for");
        }
    };
    runner.run(signal).await.map_err(anyhow::Error::msg)
}

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("sockets/pipeline-svc.sock")
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
        RuntimeKind::Process => Ok(Arc::new(processes(config, data_dir, stores).await?)),
        RuntimeKind::Docker => crate::docker::runtime(config, data_dir, stores).await,
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

async fn processes(
    config: &Config,
    data_dir: &Path,
    stores: &Stores,
) -> anyhow::Result<ProcessRuntime> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let python = PythonConfig::new(
        data_dir.join("envs"),
        config.python.interpreter.clone(),
        std::env::vars(),
    );
    let launcher: Vec<OsString> = vec![program.into(), crate::LAUNCH.into()];
    let artifacts = artifacts_here(config, data_dir);
    if let Some(folder) = &artifacts {
        // Steps are kept from changing what is in it, which has to be there to be tried.
        let made = std::fs::create_dir_all(folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let folders: Vec<&Path> = std::iter::once(data_dir)
        .chain(artifacts.as_deref())
        .collect();
    let processes = ProcessConfig {
        data_dir: data_dir.to_path_buf(),
        inputs: inputs(config.processes.inputs, &launcher, &folders)?,
        artifacts,
        launcher,
        path: std::env::var("PATH").unwrap_or_default(),
    };
    let envs = PythonEnvs::new(python);
    check_python(config, &envs).await?;
    Ok(ProcessRuntime::new(processes, envs, stores.clone()))
}

/// Says at once what the first Python step would say. A Python that is named has to work; without the
/// usual one, steps in other languages run all the same.
async fn check_python(config: &Config, envs: &PythonEnvs) -> anyhow::Result<()> {
    let program = &config.python.interpreter;
    if *program != Python::default().interpreter {
        let tried = envs.python(None).await.map(|_| ());
        return tried.context("python.interpreter (--python) cannot be started");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        tracing::warn!(
            "{program} is not on the PATH: Python steps will fail until it is, or --python names one"
        );
    }
    Ok(())
}

/// How processes reach their inputs.
fn inputs(wanted: InputsKind, launcher: &[OsString], folders: &[&Path]) -> anyhow::Result<Inputs> {
    match wanted {
        InputsKind::Copy => Ok(Inputs::Copied),
        InputsKind::Auto => Ok(Inputs::that_work(launcher, folders)),
        InputsKind::Mount => match Inputs::that_work(launcher, folders) {
            Inputs::Mounted => Ok(Inputs::Mounted),
            Inputs::Copied => bail!(
                "processes.inputs is \"mount\", and nothing can be mounted read-only here: run as \
                 root, permit user namespaces, or set it to \"copy\""
            ),
        },
    }
}

/// The folder that artifacts of all tasks are kept in, if they are kept on this machine.
pub(crate) fn artifacts_here(config: &Config, data_dir: &Path) -> Option<PathBuf> {
    match config.artifacts.url.as_str() {
        "" => Some(data_dir.join("artifacts")),
        local if local.starts_with('/') => Some(Path::new(local).join("artifacts")),
        _ => None,
    }
}
