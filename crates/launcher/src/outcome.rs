//! What came of an attempt.

use std::collections::BTreeMap;

use ferroflow_types::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How an attempt ended, as its launcher saw it, or its runtime where the launcher left nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// When the command was started.
    pub started_at: Timestamp,
    /// When everything was collected.
    pub finished_at: Timestamp,
    /// How it went.
    pub result: AttemptResult,
}

impl Outcome {
    /// The same for a disk that has no room for all of it: a failure without its log, with the start
    /// of its message.
    pub(crate) fn shortened(&self, bytes: usize, error: &std::io::Error) -> Self {
        let failure = match &self.result {
            AttemptResult::Succeeded(_) => Failure::new(
                FailureReason::NoSpace,
                format!("its outputs cannot be noted, the report is {bytes} bytes: {error}"),
            ),
            AttemptResult::Failed(failure) => Failure {
                // A character is 6 bytes of JSON at most, and room is set aside for 16 KiB.
                message: failure.message.chars().take(2000).collect(),
                log_tail: String::new(),
                ..failure.clone()
            },
        };
        Self {
            result: AttemptResult::Failed(failure),
            ..self.clone()
        }
    }
}

/// Whether the disk is full, or the user's share of it.
pub fn is_storage_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptResult {
    /// The command ended with 0 and its outputs are there.
    Succeeded(Outputs),
    /// It did not.
    Failed(Failure),
}

/// What a command gave.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Outputs {
    /// Parameters that have a value.
    pub parameters: BTreeMap<String, Value>,
    /// Artifacts by output.
    pub artifacts: BTreeMap<String, Vec<ProducedArtifact>>,
}

/// An artifact as the command left it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProducedArtifact {
    /// The output's name, or what the command called it.
    pub name: String,
    /// Where it is.
    pub uri: String,
    /// What the command said of it.
    pub metadata: Map<String, Value>,
    /// `sha256:…` of its content, when there is content.
    pub digest: Option<String>,
    /// What its content looked like when the digest was taken, if it is at the output's own place.
    #[serde(default)]
    pub stamp: Option<String>,
    /// The size of its content in bytes.
    pub size_bytes: Option<u64>,
    /// A path that replaces the one derived from the URI.
    pub custom_path: Option<String>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub reason: FailureReason,
    /// For people: what happened and the way out.
    pub message: String,
    /// How the command ended.
    pub exit_code: Option<i32>,
    /// The last lines of its log, at most 4 KiB.
    pub log_tail: String,
}

impl Failure {
    /// A failure without a command that ended.
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            exit_code: None,
            log_tail: String::new(),
        }
    }

    /// A failure of the file system or the kernel: `what` was not possible.
    pub fn of_io(what: &str, error: &std::io::Error) -> Self {
        let reason = if is_storage_full(error) {
            FailureReason::NoSpace
        } else {
            FailureReason::StartFailed
        };
        Self::new(reason, format!("{what}: {error}"))
    }
}

/// Why an attempt failed, as a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureReason {
    /// The command ended with another code than 0.
    ExitCode,
    /// The command was ended by a signal.
    Signal,
    /// It took too long.
    Timeout,
    /// Somebody stopped it.
    Canceled,
    /// There is no such program, or it cannot be executed.
    StartFailed,
    /// Its Python environment cannot be made.
    Environment,
    /// Its outputs are missing or wrong.
    Output,
    /// The disk is full.
    NoSpace,
    /// The launcher vanished; nobody knows how the command ended.
    Lost,
    /// Its image cannot be had.
    ImagePull,
    /// No node takes it.
    Unschedulable,
    /// It used more memory than it may.
    OutOfMemory,
    /// Its node ended it: maintenance, or too little room.
    Evicted,
    /// Something more important took its place.
    Preempted,
    /// Inputs or outputs could not be transferred.
    Transfer,
    /// The object store was away for too long.
    StoreAway,
    /// Something that it started outlives it and cannot be ended.
    ProcessesLeft,
}

impl FailureReason {
    /// Whether the place and not the command is to blame, so that it may be tried elsewhere without
    /// counting as a retry.
    pub fn is_lost(self) -> bool {
        matches!(
            self,
            Self::Lost | Self::Evicted | Self::Preempted | Self::StoreAway
        )
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExitCode => "ExitCode",
            Self::Signal => "Signal",
            Self::Timeout => "Timeout",
            Self::Canceled => "Canceled",
            Self::StartFailed => "StartFailed",
            Self::Environment => "Environment",
            Self::Output => "Output",
            Self::NoSpace => "NoSpace",
            Self::Lost => "Lost",
            Self::ImagePull => "ImagePull",
            Self::Unschedulable => "Unschedulable",
            Self::OutOfMemory => "OutOfMemory",
            Self::Evicted => "Evicted",
            Self::Preempted => "Preempted",
            Self::Transfer => "Transfer",
            Self::StoreAway => "StoreAway",
            Self::ProcessesLeft => "ProcessesLeft",
        }
    }
}
