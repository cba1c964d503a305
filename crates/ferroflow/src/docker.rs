//! Tasks as containers: the settings of the runtime from those of the platform.

use std::path::Path;
use std::sync::Arc;

use ferroflow_artifacts::stores::Stores;
use ferroflow_runtime::{DockerConfig, DockerRuntime, Runtime};

use crate::config::Config;

/// The runtime over the engine that the settings name.
pub(crate) async fn runtime(
    config: &Config,
    data_dir: &Path,
    stores: &Stores,
) -> anyhow::Result<Arc<dyn Runtime>> {
    let url = &config.artifacts.url;
    let artifacts = match url.as_str() {
        "" => Some(data_dir.join("artifacts")),
        local if local.starts_with('/') => Some(Path::new(local).join("artifacts")),
        _ => None,
    };
    let settings = DockerConfig {
        data_dir: data_dir.to_path_buf(),
        artifacts,
        ..config.docker.clone()
    };
    let containers = DockerRuntime::connect(settings, stores.clone()).await?;
    Ok(Arc::new(containers))
}
