//! What the services of a process share, beside what each is given of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferroflow_artifacts::stores::Stores;
use ferroflow_pipeline_svc::PipelineSvc;
use ferroflow_runtime::{Runtime, Site};
use ferroflow_service::service::{Service as _, Settings as _};
use tokio::sync::OnceCell;

use crate::config::Config;
use crate::runtimes;
use crate::service::ServiceDeps;
use crate::settings::is_postgres;

/// What the services of a process share.
pub struct Shared {
    config: Config,
    data_dir: PathBuf,
    stores: Stores,
    runtime: OnceCell<Arc<dyn Runtime>>,
}

impl Shared {
    pub(crate) fn new(config: Config, data_dir: &Path) -> Self {
        Self {
            stores: Stores::new(config.artifacts.s3.clone()),
            data_dir: data_dir.to_path_buf(),
            runtime: OnceCell::new(),
            config,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// How artifacts are reached.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The path or URI below which artifacts are kept.
    pub fn artifacts(&self) -> String {
        match self.config.artifacts.url.as_deref() {
            None => self.data_dir.join("artifacts").display().to_string(),
            Some(given) => format!("{}/artifacts", given.trim_end_matches('/')),
        }
    }

    /// Where commands run. The first service that asks has it made.
    ///
    /// # Errors
    /// Settings that do not fit together, an engine or a cluster that cannot be reached.
    pub async fn runtime(&self) -> anyhow::Result<Arc<dyn Runtime>> {
        let make = || runtimes::open(&self.config, &self.data_dir, &self.stores);
        Ok(Arc::clone(self.runtime.get_or_try_init(make).await?))
    }
}

impl ServiceDeps for PipelineSvc {
    async fn deps(shared: &Shared, config: &Self::Config) -> anyhow::Result<Self::Deps> {
        let runtime = shared.runtime().await?;
        // A replica on another machine does not find the folders of attempts that run here.
        let is_alone = runtime.capabilities().site == Site::Machine;
        if is_postgres(config.database()) && is_alone {
            tracing::warn!(
                service = Self::NAME,
                "tasks run on this machine only (runtime): start one replica, others would not find them"
            );
        }
        Ok(Self::Deps {
            runtime,
            stores: shared.stores().clone(),
            artifacts: shared.artifacts(),
        })
    }
}
