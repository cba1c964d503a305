//! Where commands run, out of settings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use ferroflow_artifacts::stores::Stores;
use ferroflow_python_env::{PythonConfig, PythonEnvs};
use ferroflow_runtime::{
    InputAccess, KubernetesConfig, KubernetesRuntime, ProcessConfig, ProcessRuntime, Runtime,
};

use crate::config::{Config, InputsKind, Python, RuntimeKind};

/// The runtime that the settings name.
pub(crate) async fn open(
    config: &Config,
    data_dir: &Path,
    stores: &Stores,
) -> anyhow::Result<Arc<dyn Runtime>> {
    match config.runtime {
        RuntimeKind::Process => Ok(Arc::new(process_runtime(config, data_dir, stores).await?)),
        RuntimeKind::Docker => crate::docker::runtime(config, data_dir, stores).await,
        RuntimeKind::Kubernetes => {
            let root = config.artifacts.url.as_deref().unwrap_or_default();
            if !root.starts_with("s3://") {
                bail!(
                    "artifacts.url is {root:?}, and pods share no folder with this machine: give an \
                     s3:// URI"
                );
            }
            let settings = KubernetesConfig {
                root: root.to_owned(),
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

async fn process_runtime(
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
    // The launcher is this program too, so that there is one file to install.
    let launcher: Vec<OsString> = vec![program.into(), crate::LAUNCH_SUBCOMMAND.into()];
    let artifacts = local_artifacts_dir(config, data_dir);
    if let Some(folder) = &artifacts {
        // Steps see it mounted read-only where that is possible, and only a folder that is there
        // can be tried.
        let created = std::fs::create_dir_all(folder);
        created.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let folders: Vec<&Path> = std::iter::once(data_dir)
        .chain(artifacts.as_deref())
        .collect();
    let processes = ProcessConfig {
        data_dir: data_dir.to_path_buf(),
        inputs: select_inputs(config.processes.inputs, &launcher, &folders).await?,
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
        let probe = envs.python(None).await.map(|_| ());
        return probe.context("python.interpreter (--python) cannot be started");
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
async fn select_inputs(
    kind: InputsKind,
    launcher: &[OsString],
    folders: &[&Path],
) -> anyhow::Result<InputAccess> {
    match kind {
        InputsKind::Copy => Ok(InputAccess::Copied),
        InputsKind::Auto => Ok(InputAccess::detect(launcher, folders).await),
        InputsKind::Mount => match InputAccess::detect(launcher, folders).await {
            InputAccess::Mounted => Ok(InputAccess::Mounted),
            InputAccess::Copied => bail!(
                "processes.inputs is \"mount\", and nothing can be mounted read-only here: run as \
                 root, permit user namespaces, or set it to \"copy\""
            ),
        },
    }
}

/// The folder that artifacts of all tasks are kept in, if they are kept on this machine.
pub(crate) fn local_artifacts_dir(config: &Config, data_dir: &Path) -> Option<PathBuf> {
    match config.artifacts.url.as_deref() {
        None => Some(data_dir.join("artifacts")),
        // The same folder as in `Shared::artifacts`.
        Some(local) if local.starts_with('/') => Some(Path::new(local).join("artifacts")),
        _ => None,
    }
}
