//! Tasks as containers: flags, and the settings of the runtime from those of the platform.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferroflow_artifacts::stores::Stores;
use ferroflow_runtime::{DockerConfig, DockerRuntime, Runtime};
use serde_json::{Value, json};

use crate::config::Config;
use crate::runtimes;

/// Settings of containers. `[docker.images]` of the file maps images to others, `"*"` all that it does
/// not name.
#[derive(Debug, clap::Args)]
#[group(id = "docker-flags")]
pub(crate) struct Flags {
    /// The socket of this machine's Docker engine [FERROFLOW_DOCKER__HOST or DOCKER_HOST; default
    /// where engines usually listen].
    #[arg(long, value_name = "URL")]
    docker_host: Option<String>,
    /// The statically linked `ferroflow-launcher` that containers start with
    /// [FERROFLOW_DOCKER__LAUNCHER; default the file beside this program].
    #[arg(long, value_name = "FILE")]
    docker_launcher: Option<PathBuf>,
    /// The network of containers [FERROFLOW_DOCKER__NETWORK; default the engine's].
    #[arg(long, value_name = "NAME")]
    docker_network: Option<String>,
    /// When images are pulled: Always, IfNotPresent or Never [FERROFLOW_DOCKER__PULL_POLICY; default
    /// IfNotPresent].
    #[arg(long, value_name = "POLICY")]
    docker_pull_policy: Option<String>,
    /// Seconds that a registry which does not answer is tried [FERROFLOW_DOCKER__IMAGE_PATIENCE_S;
    /// default 60].
    #[arg(long, value_name = "SECONDS")]
    docker_image_patience_s: Option<u64>,
    /// `uid` or `uid:gid` of commands, for example 0 for images that need root
    /// [FERROFLOW_DOCKER__USER; default the user of this program].
    #[arg(long, value_name = "USER")]
    docker_user: Option<String>,
    /// A folder that every container sees, `/outside:/inside` or with `:ro` behind; repeat for several
    /// [FERROFLOW_DOCKER__MOUNTS; default none].
    #[arg(long, value_name = "MOUNT")]
    docker_mount: Vec<String>,
}

impl Flags {
    /// The flags that were given, in the shape of the settings.
    pub(crate) fn to_settings(&self) -> Value {
        let mounts = (!self.docker_mount.is_empty()).then_some(&self.docker_mount);
        json!({
            "host": self.docker_host,
            "launcher": self.docker_launcher,
            "network": self.docker_network,
            "pull_policy": self.docker_pull_policy,
            "image_patience_s": self.docker_image_patience_s,
            "user": self.docker_user,
            "mounts": mounts,
        })
    }
}

/// The runtime over the engine that the settings name.
pub(crate) async fn runtime(
    config: &Config,
    data_dir: &Path,
    stores: &Stores,
) -> anyhow::Result<Arc<dyn Runtime>> {
    let settings = DockerConfig {
        data_dir: data_dir.to_path_buf(),
        artifacts: runtimes::local_artifacts_dir(config, data_dir),
        ..config.docker.clone()
    };
    let containers = DockerRuntime::connect(settings, stores.clone()).await?;
    Ok(Arc::new(containers))
}
