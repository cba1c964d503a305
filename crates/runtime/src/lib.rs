//! Where attempts run. One trait, several backends, one contract suite over all of them.
//!
//! ```text
//! engine ──► ensure(spec) ──► observe(key) ──► Outcome        (pushed, never asked for again)
//!              idempotent by key      logs, stop, delete at any time
//! ```
//!
//! A key is one attempt of one item of any domain, so a request that is repeated after a crash finds
//! what the first one did: not begun, at work, or done.
#![warn(missing_docs)]

mod capabilities;
mod checks;
#[cfg(feature = "contract")]
pub mod contract;
#[cfg(feature = "docker")]
pub mod docker;
mod environment;
mod fetch;
mod folders;
#[cfg(any(feature = "docker", feature = "kubernetes"))]
mod image_map;
mod kfp;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(any(feature = "docker", feature = "kubernetes"))]
mod labels;
mod notes;
mod preparations;
pub mod process;
mod python;
mod remarks;
mod slots;

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use ferroflow_launcher::{AttemptKey, AttemptSpec, Outcome, OwnerKey};
use futures::stream::BoxStream;

pub use capabilities::{Capabilities, Destinations, EntryPoints, SharedFolder, Site};
#[cfg(feature = "docker")]
pub use docker::{DockerConfig, DockerError, DockerRuntime};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{KubernetesConfig, KubernetesRuntime};
pub use notes::Notes;
pub use process::{InputAccess, ProcessConfig, ProcessRuntime};
pub use slots::{Slot, Slots};

/// Where an attempt finds things; a function of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What the command leaves goes here. The folders of files that its spec names are made.
    pub outputs_dir: PathBuf,
    /// The command starts here.
    pub working_dir: PathBuf,
    /// Copies of inputs of this machine go here, where commands get copies.
    pub copies_dir: Option<PathBuf>,
}

/// Why the runtime could not do what it was asked; says nothing of the command.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file or a process could not be handled.
    #[error("attempt {key}: cannot {what}")]
    Io {
        /// The attempt.
        key: AttemptKey,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What knows of the attempt cannot be asked now; the attempt goes on, and asking again helps.
    #[error("attempt {key}: cannot {what} now")]
    Unavailable {
        /// The attempt.
        key: AttemptKey,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no such attempt.
    #[error("attempt {0} is not known")]
    Unknown(AttemptKey),
}

/// A part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogRequest {
    /// Bytes to leave out at the start.
    pub offset: u64,
    /// Whether to go on until the attempt has ended.
    pub follow: bool,
}

/// Log output as it comes.
pub type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// A place where attempts run.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Where the attempt will find things.
    fn layout(&self, key: &AttemptKey) -> Layout;

    /// The folder that the attempts of an owner share.
    fn workspace(&self, owner: &OwnerKey) -> SharedFolder;

    /// What attempts can have here.
    fn capabilities(&self) -> Capabilities;

    /// How many commands run at once here. Whoever ensures an attempt takes one of these before, and
    /// gives it back at the attempt's end.
    fn slots(&self) -> &Slots;

    /// What interprets a command, where its image does not bring that: kind, version and platform.
    /// Placeholders in the arguments need not be resolved.
    async fn interpreter(&self, _image: &str, _argv: &[String]) -> Option<String> {
        None
    }

    /// What an attempt asks for and does not get here, a sentence each.
    async fn remarks(&self, _spec: &AttemptSpec) -> Vec<String> {
        Vec::new()
    }

    /// Sees to it that the attempt runs or has run. Asking twice is asking once. Does not wait for what
    /// comes before a command (content that is copied, images, environments): [`Self::observe`] does,
    /// and tells what went wrong. Kubernetes still has to have taken the pod: a full quota and an API
    /// server that is away are waited for.
    async fn ensure(&self, spec: AttemptSpec) -> Result<(), RuntimeError>;

    /// What waiting attempts say of it.
    fn notes(&self) -> &Notes;

    /// Returns when the attempt has ended, however long ago that was.
    async fn observe(&self, key: &AttemptKey) -> Result<Outcome, RuntimeError>;

    /// What the command printed, kept after its end.
    async fn logs(&self, key: &AttemptKey, request: LogRequest) -> Result<LogStream, RuntimeError>;

    /// Stops the attempt with everything it started; `observe` then says that it was cancelled.
    async fn stop(&self, key: &AttemptKey) -> Result<(), RuntimeError>;

    /// Forgets everything of an owner, logs included.
    async fn delete(&self, owner: &OwnerKey) -> Result<(), RuntimeError>;
}

#[cfg(test)]
mod tests {
    use ferroflow_launcher::{AttemptKey, Domain, OwnerKey};
    use ferroflow_types::{Namespace, RunId, TaskId};

    /// A key of pipelines.
    pub(crate) fn key(item: &str, attempt: u32) -> AttemptKey {
        key_of(Domain::PIPELINES.as_str(), item, attempt)
    }

    /// A key of a domain; the ids are the same in all.
    pub(crate) fn key_of(domain: &str, item: &str, attempt: u32) -> AttemptKey {
        let run: RunId = "7d444840-9dc0-11d1-b245-5ffdce74fad2".parse().unwrap();
        let owner = OwnerKey {
            domain: domain.parse().unwrap(),
            namespace: Namespace::single_user(),
            id: run.uuid(),
        };
        AttemptKey {
            owner,
            item: TaskId::derive(run, item).uuid(),
            attempt,
        }
    }
}
