//! A recurring run as it is stored and shown: what it runs, and when.

use ferroflow_schedule::{Limits, Progress, Trigger};
use ferroflow_types::{Namespace, RunId, Timestamp};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::domain::definition::RUN_NAME_MAX;
use crate::domain::id::{ExperimentId, PipelineId, PipelineVersionId, RecurringRunId};
use crate::domain::run::RunError;

/// A schedule that creates runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecurringRun {
    /// Its id.
    pub id: RecurringRunId,
    /// The tenant.
    pub namespace: Namespace,
    /// The folder of its runs.
    pub experiment: ExperimentId,
    /// The user's name for it; need not be unique.
    pub display_name: String,
    /// The user's words on it.
    pub description: String,
    /// What it runs.
    pub pipeline: PipelineChoice,
    /// Parameters as given, macros unexpanded.
    pub parameters: Map<String, Value>,
    /// The pipeline root as given, possibly empty.
    pub root_given: String,
    /// Kept for the clients that set it.
    pub service_account: String,
    /// When it runs.
    pub trigger: Trigger,
    /// How many at once, and what becomes of missed times.
    pub limits: Limits,
    /// Whether it creates runs.
    pub enabled: bool,
    /// Why it stopped by itself.
    pub error: Option<RunError>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last enabled, disabled or stopped.
    pub updated_at: Timestamp,
    /// How far it is.
    pub progress: Progress,
    /// The first due time after `progress.cursor`.
    pub next_due: Option<Timestamp>,
    /// How many events were told of it.
    pub event_sequence: i64,
    /// The subject of who made it; empty for the platform itself, and where it was not kept.
    pub created_by: String,
}

/// The pipeline that a recurring run runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PipelineChoice {
    /// One version, also when others come or it is deleted.
    Version {
        /// Its pipeline.
        pipeline: PipelineId,
        /// The version.
        version: PipelineVersionId,
        /// The digest of its specification.
        digest: String,
    },
    /// The version that is the newest at each due time.
    Latest {
        /// The pipeline.
        pipeline: PipelineId,
    },
    /// A specification that came with the request.
    Inline {
        /// Its digest.
        digest: String,
    },
}

impl RecurringRun {
    /// The run of a due time: the same whoever makes it, and however often.
    pub(crate) fn run_id(&self, due: Timestamp) -> RunId {
        let name = due.millis().to_string();
        RunId::new(Uuid::new_v5(&self.id.uuid(), name.as_bytes()))
    }

    /// The name of its run of this number.
    pub(crate) fn run_name(&self, index: i64) -> String {
        format!("{}-{index}", self.display_name)
    }
}

/// Bytes of a recurring run's name. In the names of its runs, which have [`RUN_NAME_MAX`], a hyphen
/// and an `i64` follow it: 21 bytes at most.
pub(crate) const NAME_MAX: usize = RUN_NAME_MAX - 21;
