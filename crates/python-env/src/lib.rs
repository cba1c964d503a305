//! Python environments for steps: one per interpreter and set of requirements, built once, shared.
//!
//! ```text
//! <root>/<key>/        a venv, built where it stays (venvs cannot be moved)
//! <root>/<key>.ready   made last; without it the folder is incomplete and built again
//! <root>/<key>.lock    held while it is built, across processes
//! <root>/tools/        uv, when it is not on the PATH
//! ```
//!
//! Environments are built by uv, which links packages out of its cache, so the second environment
//! with the same package costs next to nothing.
#![warn(missing_docs)]

mod build;
mod git;
mod interpreters;
mod pip;
mod redact;
mod settings;
mod tool;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, OnceCell};

use build::Builder;
use redact::{without_credentials, without_users};

pub use interpreters::PythonVersion;
pub use settings::PythonConfig;

/// One `pip install`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Default)]
pub struct PipInstall {
    /// Requirements as pip takes them.
    pub packages: Vec<String>,
    /// The index, when it is not the configured one.
    pub index_url: Option<String>,
    /// Further indexes.
    pub extra_index_urls: Vec<String>,
    /// Pages and folders with packages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub find_links: Vec<String>,
    /// Hosts that need no valid certificate, as pip takes them.
    pub trusted_hosts: Vec<String>,
    /// Whether dependencies are left out.
    pub no_deps: bool,
    /// Whether no index is asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_index: bool,
    /// Whether versions before a release are taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pre: bool,
}

impl PipInstall {
    /// Every text of it that may be a URL with credentials.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let lists = [
            &self.packages,
            &self.extra_index_urls,
            &self.find_links,
            &self.trusted_hosts,
        ];
        let lists = lists.into_iter().flatten();
        lists.chain(&self.index_url).map(String::as_str)
    }

    /// The same with every text of it changed that may be a URL.
    fn map(&self, change: impl Fn(&str) -> String) -> Self {
        let list = |texts: &[String]| texts.iter().map(|text| change(text)).collect();
        Self {
            packages: list(&self.packages),
            index_url: self.index_url.as_deref().map(&change),
            extra_index_urls: list(&self.extra_index_urls),
            find_links: list(&self.find_links),
            trusted_hosts: list(&self.trusted_hosts),
            ..self.clone()
        }
    }
}

/// Without credentials.
impl std::fmt::Debug for PipInstall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.map(without_credentials);
        f.debug_struct("PipInstall")
            .field("packages", &shown.packages)
            .field("index_url", &shown.index_url)
            .field("extra_index_urls", &shown.extra_index_urls)
            .field("find_links", &shown.find_links)
            .field("trusted_hosts", &shown.trusted_hosts)
            .field("no_deps", &shown.no_deps)
            .field("no_index", &shown.no_index)
            .field("pre", &shown.pre)
            .finish()
    }
}

/// What an environment has; equal ones are shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Default)]
pub struct EnvSpec {
    /// Installations, one after the other.
    pub steps: Vec<PipInstall>,
    /// The Python that it is for, if that matters.
    #[serde(skip)]
    pub python: Option<PythonVersion>,
}

impl EnvSpec {
    /// The requirements, without credentials.
    pub fn packages(&self) -> String {
        let all = self.steps.iter().flat_map(|step| &step.packages);
        let all: Vec<_> = all.map(|package| without_credentials(package)).collect();
        all.join(" ")
    }
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

/// The interpreter of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    /// Implementation, version and platform.
    pub identity: String,
    /// Its version, if it is a CPython 3.
    pub version: Option<PythonVersion>,
}

type SharedCell<T> = Arc<OnceCell<T>>;

/// The environments of one data folder.
pub struct PythonEnvs {
    config: PythonConfig,
    envs: Mutex<HashMap<EnvSpec, SharedCell<PythonEnv>>>,
    interpreters: Mutex<HashMap<Option<PythonVersion>, SharedCell<tool::Interpreter>>>,
    uv: OnceCell<PathBuf>,
}

impl PythonEnvs {
    /// Environments under the folder that `config` names.
    pub fn new(config: PythonConfig) -> Self {
        Self {
            config,
            envs: Mutex::new(HashMap::new()),
            interpreters: Mutex::new(HashMap::new()),
            uv: OnceCell::new(),
        }
    }

    /// What pip needs in a step that runs it by itself; see [`PythonConfig::pip_variables`].
    pub fn pip_variables(&self) -> (Vec<String>, Vec<(String, String)>) {
        self.config.pip_variables()
    }

    /// The Python that environments for a version are made with: of that version where the machine has
    /// it.
    pub async fn python(&self, wanted: Option<PythonVersion>) -> Result<Python, EnvError> {
        let found = self.interpreter(wanted).await?;
        Ok(Python {
            version: found.python_version(),
            identity: found.version,
        })
    }

    /// The environment for `spec`, built if need be. Those who ask at the same time share one
    /// building; a failed one is tried again by the next who asks.
    pub async fn ensure(&self, spec: &EnvSpec) -> Result<PythonEnv, EnvError> {
        // A failed build leaves the cell empty, so whoever asks next tries again.
        let cell = Arc::clone(self.envs.lock().await.entry(spec.clone()).or_default());
        let env = cell.get_or_try_init(|| self.find_or_build(spec)).await?;
        if env.bin.join("python3").exists() {
            return Ok(env.clone());
        }
        // The environment was removed after it had been built.
        self.envs.lock().await.remove(spec);
        self.find_or_build(spec).await
    }

    /// An environment in `dir` that nobody else uses.
    pub async fn build_private(
        &self,
        dir: &std::path::Path,
        spec: &EnvSpec,
    ) -> Result<PythonEnv, EnvError> {
        let python = self.interpreter(spec.python).await?;
        let uv = self.uv(&python).await?;
        let builder = Builder {
            config: &self.config,
            python: &python,
            uv,
        };
        builder.build_in(dir, spec).await?;
        Ok(PythonEnv {
            bin: dir.join("bin"),
            dir: dir.to_path_buf(),
        })
    }

    async fn find_or_build(&self, spec: &EnvSpec) -> Result<PythonEnv, EnvError> {
        let python = self.interpreter(spec.python).await?;
        let key = key_of(&python.version, spec);
        let dir = self.config.root.join(&key);
        let env = PythonEnv {
            bin: dir.join("bin"),
            dir,
        };
        // Without the lock: the mark is made last, so what has it is whole.
        if env.bin.join("python3").exists()
            && self.config.root.join(format!("{key}.ready")).exists()
        {
            return Ok(env);
        }
        let uv = self.uv(&python).await?;
        let builder = Builder {
            config: &self.config,
            python: &python,
            uv,
        };
        builder.build(&key, spec).await?;
        Ok(env)
    }

    async fn uv(&self, python: &tool::Interpreter) -> Result<&PathBuf, EnvError> {
        self.uv
            .get_or_try_init(|| tool::find_uv(&self.config, python))
            .await
    }

    async fn interpreter(
        &self,
        wanted: Option<PythonVersion>,
    ) -> Result<tool::Interpreter, EnvError> {
        // Looked for once: a Python that is installed later is found after the next start.
        let cell = Arc::clone(self.interpreters.lock().await.entry(wanted).or_default());
        let found = cell.get_or_try_init(|| interpreters::choose(&self.config, wanted));
        found.await.cloned()
    }
}

/// Users and passwords of URLs are no part of it: who has others gets the same packages. What is in a
/// query may choose the content as well as permit it, so it counts; only this hash of it is to be seen.
fn key_of(version: &str, spec: &EnvSpec) -> String {
    let steps = spec.steps.iter().map(|step| step.map(without_users));
    let plain = EnvSpec {
        steps: steps.collect(),
        python: None,
    };
    let mut hasher = Sha256::new();
    hasher.update(version);
    // A specification has text keys only, so it always has a JSON form.
    hasher.update(serde_json::to_vec(&plain).unwrap_or_default());
    hex::encode(&hasher.finalize()[..10])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_depend_on_credentials() {
        let spec = |url: &str| {
            let step = PipInstall {
                packages: vec![format!("x @ git+{url}/x.git")],
                index_url: Some(format!("{url}/simple")),
                ..PipInstall::default()
            };
            EnvSpec {
                steps: vec![step],
                python: None,
            }
        };
        let with = |url: &str| key_of("cpython-311", &spec(url));
        assert_eq!(with("https://a:b@host"), with("https://c:d@host"));
        assert_ne!(with("https://a:b@host"), with("https://a:b@other"));
        for name in ["key", "sig", "access_token"] {
            let of = |value: &str| {
                let step = PipInstall {
                    packages: vec![format!("https://host/x.whl?{name}={value}")],
                    ..PipInstall::default()
                };
                let steps = vec![step];
                key_of(
                    "cpython-311",
                    &EnvSpec {
                        steps,
                        python: None,
                    },
                )
            };
            assert_ne!(of("a"), of("b"), "{name}");
        }
        let shown = format!("{:?}", spec("https://me:t0ken@host"));
        assert!(!shown.contains("t0ken"), "{shown}");
    }
}
