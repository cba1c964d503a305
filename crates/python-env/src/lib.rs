//! Python environments for steps: one per interpreter and set of requirements, built once, shared.
//!
//! ```text
//! <root>/<key>/        a venv, built where it stays (venvs cannot be moved)
//! <root>/<key>.ready   made last; without it the folder is a ruin and is built again
//! <root>/<key>.lock    held while it is built, across processes
//! <root>/tools/        uv, when it is not on the PATH
//! ```
//!
//! Environments are built by uv, which links packages out of its cache, so the second environment
//! with the same package costs next to nothing.
#![warn(missing_docs)]

mod build;
mod settings;
mod tool;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, OnceCell};

pub use settings::PythonConfig;

/// One `pip install`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Default)]
pub struct PipInstall {
    /// Requirements as pip takes them.
    pub packages: Vec<String>,
    /// The index, when it is not the configured one.
    pub index_url: Option<String>,
    /// Further indexes.
    pub extra_index_urls: Vec<String>,
    /// Hosts that need no valid certificate.
    pub trusted_hosts: Vec<String>,
    /// Whether dependencies are left out.
    pub no_deps: bool,
}

/// What an environment has; equal ones are shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Default)]
pub struct EnvSpec {
    /// Installations, one after the other.
    pub steps: Vec<PipInstall>,
}

/// An environment that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonEnv {
    /// The venv.
    pub dir: PathBuf,
    /// Its programs.
    pub bin: PathBuf,
}

/// Why there is no environment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnvError {
    /// There is no Python.
    #[error(
        "there is no Python interpreter {0:?} on this machine: install Python 3, or set \
         FERROFLOW_PYTHON__INTERPRETER"
    )]
    NoPython(String),
    /// uv cannot be had.
    #[error("uv is not on the PATH and cannot be fetched from PyPI: {0}")]
    NoUv(String),
    /// A package cannot be installed.
    #[error("cannot install {packages}: {problem}")]
    Install {
        /// The requirements.
        packages: String,
        /// The end of what the installer said.
        problem: String,
    },
    /// The file system failed.
    #[error("cannot build a Python environment: {0}")]
    Io(String),
}

type Slot = Arc<OnceCell<PythonEnv>>;

/// The environments of one data folder.
pub struct PythonEnvs {
    config: PythonConfig,
    known: Mutex<HashMap<EnvSpec, Slot>>,
    interpreter: OnceCell<tool::Interpreter>,
    uv: OnceCell<PathBuf>,
}

impl PythonEnvs {
    /// Environments under the folder that `config` names.
    pub fn new(config: PythonConfig) -> Self {
        Self {
            config,
            known: Mutex::new(HashMap::new()),
            interpreter: OnceCell::new(),
            uv: OnceCell::new(),
        }
    }

    /// The environment for `spec`, built if need be. Those who ask at the same time share one
    /// building; a failed one is tried again by the next who asks.
    pub async fn ensure(&self, spec: &EnvSpec) -> Result<PythonEnv, EnvError> {
        let slot = Arc::clone(self.known.lock().await.entry(spec.clone()).or_default());
        let env = slot.get_or_try_init(|| self.find_or_build(spec)).await?;
        if env.bin.join("python3").exists() {
            return Ok(env.clone());
        }
        // Somebody cleaned the folder up.
        self.known.lock().await.remove(spec);
        self.find_or_build(spec).await
    }

    /// An environment in `dir` that nobody else uses.
    pub async fn private(
        &self,
        dir: &std::path::Path,
        spec: &EnvSpec,
    ) -> Result<PythonEnv, EnvError> {
        let interpreter = self.interpreter().await?;
        let uv = self
            .uv
            .get_or_try_init(|| tool::find_uv(&self.config, interpreter))
            .await?;
        build::fill(&self.config, interpreter, uv, dir, spec).await?;
        Ok(PythonEnv {
            bin: dir.join("bin"),
            dir: dir.to_path_buf(),
        })
    }

    async fn find_or_build(&self, spec: &EnvSpec) -> Result<PythonEnv, EnvError> {
        let interpreter = self.interpreter().await?;
        let key = key_of(&interpreter.version, spec);
        let dir = self.config.root.join(&key);
        let env = PythonEnv {
            bin: dir.join("bin"),
            dir,
        };
        if env.bin.join("python3").exists()
            && self.config.root.join(format!("{key}.ready")).exists()
        {
            return Ok(env);
        }
        let uv = self
            .uv
            .get_or_try_init(|| tool::find_uv(&self.config, interpreter))
            .await?;
        build::build(&self.config, interpreter, uv, &key, spec).await?;
        Ok(env)
    }

    /// Implementation, version and platform of the interpreter that environments are made with.
    pub async fn interpreter_version(&self) -> Result<String, EnvError> {
        Ok(self.interpreter().await?.version.clone())
    }

    async fn interpreter(&self) -> Result<&tool::Interpreter, EnvError> {
        self.interpreter
            .get_or_try_init(|| tool::find_python(&self.config))
            .await
    }
}

fn key_of(version: &str, spec: &EnvSpec) -> String {
    let mut hasher = Sha256::new();
    hasher.update(version);
    // A specification has text keys only, so it always has a JSON form.
    hasher.update(serde_json::to_vec(spec).unwrap_or_default());
    hex::encode(&hasher.finalize()[..10])
}
