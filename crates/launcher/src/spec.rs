//! What an attempt is to do.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kfp::{self, Kfp};
use crate::{AttemptKey, Failure, FailureReason, ReadOnly, exec_limits};

/// A variable whose value has more bytes is set by the launcher and left out of the pod: an API server
/// refuses objects of more than 1.5 MiB.
const LARGE_VALUE: usize = 16 * 1024;

/// A command and everything around it, placeholders resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptSpec {
    /// Which attempt it is.
    pub key: AttemptKey,
    /// Its name for people.
    #[serde(rename = "task_name")]
    pub name: String,
    /// Labels of its pod or container, beside ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The image that the command was written for.
    pub image: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Whether these are arguments only, for the entry point of the image.
    #[serde(default)]
    pub entry_point: bool,
    /// The declared environment, in order; the runtime puts its own in front.
    pub env: Vec<(String, String)>,
    /// Variables of the launcher's own that a process gets as well; their values may be secrets and are
    /// not written down.
    #[serde(default)]
    pub inherited: Vec<String>,
    /// Files and folders that the command leaves, to be kept where their URIs say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<OutputArtifact>,
    /// What it may use.
    pub limits: Limits,
    /// Where it runs.
    pub working_dir: PathBuf,
    /// W3C trace context for the command's environment.
    pub traceparent: Option<String>,
    /// Content of other stores that the command finds as files.
    #[serde(default)]
    pub inputs: Vec<InputArtifact>,
    /// The folder that inputs go to, for an attempt that brings them and does nothing else. Others
    /// may write there at the same time.
    #[serde(default)]
    pub fetch_into: Option<PathBuf>,
    /// Content that is there already, at another path than some commands look for it.
    #[serde(default)]
    pub links: Vec<InputLink>,
    /// Content of this machine that the command finds where it is.
    #[serde(default)]
    pub local_inputs: Vec<PathBuf>,
    /// The same with what was noted of it, where that is to be compared.
    #[serde(default)]
    pub checked: Vec<InputArtifact>,
    /// What a process of this machine may not change.
    #[serde(default)]
    pub read_only: ReadOnly,
    /// What a cluster is asked for.
    #[serde(default)]
    pub resources: Resources,
    /// The folder that its owner's attempts share, if they have one.
    #[serde(default)]
    pub workspace: Option<Workspace>,
    /// What is KFP's, for the attempts of its components.
    #[serde(flatten, deserialize_with = "kfp::read")]
    pub kfp: Option<Kfp>,
}

impl AttemptSpec {
    /// An attempt that has nothing to do yet.
    pub fn new(key: AttemptKey, working_dir: PathBuf) -> Self {
        Self {
            key,
            name: String::new(),
            labels: BTreeMap::new(),
            image: String::new(),
            argv: Vec::new(),
            entry_point: false,
            env: Vec::new(),
            inherited: Vec::new(),
            files: Vec::new(),
            limits: Limits::default(),
            working_dir,
            traceparent: None,
            inputs: Vec::new(),
            fetch_into: None,
            links: Vec::new(),
            local_inputs: Vec::new(),
            checked: Vec::new(),
            read_only: ReadOnly::default(),
            resources: Resources::default(),
            workspace: None,
            kfp: None,
        }
    }

    /// All files and folders that are kept of what the command leaves.
    pub fn outputs(&self) -> impl Iterator<Item = &OutputArtifact> {
        let of_kfp = self.kfp.iter().flat_map(|kfp| &kfp.outputs.artifacts);
        self.files.iter().chain(of_kfp)
    }

    /// Values that may be part of its words and variables, by their names.
    pub(crate) fn arguments(&self) -> Option<&Map<String, Value>> {
        self.kfp.as_ref().map(|kfp| &kfp.arguments)
    }

    /// Declared variables that the launcher sets, since they are too large for the object of a pod or
    /// a container. Those that would be changed by [`is_expanded`], or are referred to, stay with the
    /// rest.
    pub fn large_env(&self) -> impl Iterator<Item = &(String, String)> {
        let refers = |name: &str| {
            let reference = format!("$({name})");
            self.env.iter().any(|(_, value)| value.contains(&reference))
        };
        self.env
            .iter()
            .enumerate()
            .filter_map(move |(at, variable)| {
                let (name, value) = variable;
                // Of several with one name the last counts, and the launcher's come after all
                // others.
                let is_last = self.env[at + 1..].iter().all(|(other, _)| other != name);
                let large =
                    value.len() > LARGE_VALUE && is_last && !is_expanded(value) && !refers(name);
                large.then_some(variable)
            })
    }

    /// The declared variables that are not of [`Self::large_env`].
    pub fn small_env(&self) -> impl Iterator<Item = &(String, String)> {
        let large: BTreeSet<&str> = self.large_env().map(|(name, _)| name.as_str()).collect();
        let small = self.env.iter();
        small.filter(move |(name, _)| !large.contains(name.as_str()))
    }

    /// Whether a command can be given every declared variable.
    ///
    /// # Errors
    /// Names the variable, its size and the limit.
    pub fn check_env(&self) -> Result<(), String> {
        let env = self.env.iter();
        let env = env.map(|(name, value)| (OsStr::new(name), OsStr::new(value)));
        exec_limits::check_variables(env, self.arguments())
    }

    /// Whether bringing the inputs is all that is to be done.
    pub fn only_fetches(&self) -> bool {
        self.fetch_into.is_some()
    }
}

/// Whether Kubernetes, and the other runtimes as it does, may change a variable's value: `$(NAME)` is
/// another variable's, and `$$` is `$`. The launcher sets values as they are.
pub fn is_expanded(value: &str) -> bool {
    value.contains("$(") || value.contains("$$")
}

/// A folder that the attempts of an owner share, as a volume claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// A Kubernetes quantity.
    pub size: String,
    /// For example `ReadWriteMany`; empty for the cluster's most common one.
    pub access_modes: Vec<String>,
    /// `None` for the cluster's default.
    pub storage_class: Option<String>,
}

/// An input artifact that has to be brought to where the command expects it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputArtifact {
    /// Where it is.
    pub uri: String,
    /// Where the command expects it.
    pub path: PathBuf,
    /// `sha256:…` of its content, if that is known.
    pub digest: Option<String>,
    /// What it looked like then, if it must not have changed.
    #[serde(default)]
    pub stamp: Option<String>,
}

/// A path that leads to where the content of an input is. The SDK knows of no path but the one that
/// stands for the URI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputLink {
    /// The path that stands for the URI.
    pub path: PathBuf,
    /// Where the content is.
    pub target: PathBuf,
}

impl InputArtifact {
    /// What it means for an attempt that must have it that nothing is there.
    pub fn missing_failure(&self) -> Failure {
        let message = format!("{} does not exist", self.uri);
        Failure::new(FailureReason::Transfer, message)
    }

    /// What it means that something else is there than what was put there.
    pub fn changed_failure(&self) -> Failure {
        let message = format!(
            "{} is not what the task that made it left there, its content has changed since: run \
             the pipeline again, and that task runs anew",
            self.uri
        );
        Failure::new(FailureReason::Transfer, message)
    }

    /// The container image whose folder [`MODELS`] is the content, for `oci://` URIs. The runtime
    /// brings it, nobody else could (KServe calls such an image a modelcar).
    pub fn image(&self) -> Option<&str> {
        self.uri.strip_prefix("oci://")
    }
}

/// Where an image of `oci://` has its content.
pub const MODELS: &str = "/models";

/// Requests and limits as Kubernetes quantities.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// By name, for example `cpu` to `250m`.
    pub requests: BTreeMap<String, String>,
    /// By name, for example `nvidia.com/gpu` to `1`.
    pub limits: BTreeMap<String, String>,
}

/// An output artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputArtifact {
    /// Its name.
    pub name: String,
    /// Whether it may be several, by KFP's report.
    #[serde(default)]
    pub list: bool,
    /// Its URI.
    pub uri: String,
    /// The path that stands for the URI here.
    pub path: PathBuf,
}

/// What a command may use; `None` for as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Milliseconds from start to end.
    pub timeout_ms: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
}
