//! A run as it is stored and shown; how it is driven is the engine's (`ferroflow_pipeline_engine::engine`).

use std::collections::BTreeMap;

use ferroflow_pipeline_engine::engine::{RunEnd, RunPhase};
use ferroflow_types::{Namespace, RunId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::id::{ExperimentId, PipelineId, PipelineVersionId, RecurringRunId};

/// Whether a run is among the current ones or put away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StorageState {
    /// Current.
    Available,
    /// Put away; it can be brought back.
    Archived,
}

impl StorageState {
    /// The word in SQL and filters.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Archived => "ARCHIVED",
        }
    }

    /// The state that `as_str` printed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Available, Self::Archived]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum RunStatus {
    /// Accepted, not begun.
    Pending,
    /// Tasks run.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Being stopped.
    Canceling,
    /// Stopped by somebody.
    Canceled,
}

impl RunStatus {
    const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceling,
        Self::Canceled,
    ];

    /// The word in SQL, filters and events.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Canceling => "CANCELING",
            Self::Canceled => "CANCELED",
        }
    }

    /// The status that `as_str` printed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether nothing more happens to the run, short of a retry.
    pub(crate) fn ended(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Canceling => false,
            Self::Succeeded | Self::Failed | Self::Canceled => true,
        }
    }

    /// What a phase of the engine is called outside.
    pub(crate) fn from_phase(phase: RunPhase) -> Self {
        match phase {
            RunPhase::New => Self::Pending,
            // A run out of time is still shown as running until its tasks have stopped.
            RunPhase::Running | RunPhase::Expiring => Self::Running,
            RunPhase::Canceling => Self::Canceling,
            RunPhase::Ended(RunEnd::Succeeded) => Self::Succeeded,
            RunPhase::Ended(RunEnd::Failed) => Self::Failed,
            RunPhase::Ended(RunEnd::Canceled) => Self::Canceled,
        }
    }

    /// The engine's phase for a run that is read back.
    pub(crate) fn phase(self) -> RunPhase {
        match self {
            Self::Pending => RunPhase::New,
            // Also a run whose time was up, as `from_phase` has no status for it: its deadline is
            // past, so it passes again at once.
            Self::Running => RunPhase::Running,
            Self::Canceling => RunPhase::Canceling,
            Self::Succeeded => RunPhase::Ended(RunEnd::Succeeded),
            Self::Failed => RunPhase::Ended(RunEnd::Failed),
            Self::Canceled => RunPhase::Ended(RunEnd::Canceled),
        }
    }
}

/// One entry of a run's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StatusChange {
    /// When.
    pub at: Timestamp,
    /// To what.
    pub status: RunStatus,
}

/// What a run was made from, as its creator said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A stored version.
    Version {
        /// Its pipeline.
        pipeline: PipelineId,
        /// The version.
        version: PipelineVersionId,
    },
    /// A specification that came with the request.
    Inline,
}

/// Why a run did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunError {
    /// A gRPC code: 1 for cancelled, 13 for a failed task, 4 for a deadline.
    pub code: i32,
    /// For people.
    pub message: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Run {
    /// Its id.
    pub id: RunId,
    /// The tenant.
    pub namespace: Namespace,
    /// The folder it is in; the folder may be gone.
    pub experiment: ExperimentId,
    /// The user's name for it; need not be unique.
    pub display_name: String,
    /// The user's words on it.
    pub description: String,
    /// Current or put away.
    pub storage: StorageState,
    /// Where it stands.
    pub status: RunStatus,
    /// What it was made from.
    pub source: Source,
    /// The schedule that made it.
    pub recurring_run: Option<RecurringRunId>,
    /// The digest of its specification.
    pub spec_digest: String,
    /// The pipeline's name in the specification.
    pub pipeline_name: String,
    /// Parameters as given.
    pub parameters_given: Map<String, Value>,
    /// Parameters as used: macros expanded, defaults not filled in.
    pub parameters: BTreeMap<String, Value>,
    /// The pipeline root as given, possibly empty.
    pub root_given: String,
    /// The pipeline root as used.
    pub root: String,
    /// Kept for the clients that set it.
    pub service_account: String,
    /// Whether results may be reused.
    pub caching: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was due.
    pub scheduled_at: Timestamp,
    /// When its first task was looked at.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it did not succeed.
    pub error: Option<RunError>,
    /// Each status it had.
    pub history: Vec<StatusChange>,
    /// The trace of the request that created it (W3C), empty for none.
    pub traceparent: String,
    /// How many events were told of it and its tasks.
    pub event_sequence: i64,
    /// The subject of who made it; empty for the platform itself, and where it was not kept.
    pub created_by: String,
}

impl Run {
    /// `<pipeline name>-<suffix>`: KFP's resource name of a run.
    pub(crate) fn resource_name(&self) -> String {
        let id = self.id.to_string();
        let suffix: String = id
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(8)
            .collect();
        format!("{}-{suffix}", self.pipeline_name)
    }

    /// Takes note of a change of status.
    pub(crate) fn set_status(
        &mut self,
        status: RunStatus,
        error: Option<RunError>,
        now: Timestamp,
    ) {
        if self.status != status {
            self.history.push(StatusChange { at: now, status });
        }
        self.status = status;
        self.error = error;
        if self.started_at.is_none() && status == RunStatus::Running {
            self.started_at = Some(now);
        }
        self.finished_at = status.ended().then_some(now);
    }

    /// When it began to run, or began again by a retry: its time limit counts from there, as Argo's does.
    pub(crate) fn running_since(&self) -> Option<Timestamp> {
        let mut changes = self.history.iter().rev();
        let begun = changes.find(|change| change.status == RunStatus::Running);
        begun.map(|change| change.at).or(self.started_at)
    }
}
