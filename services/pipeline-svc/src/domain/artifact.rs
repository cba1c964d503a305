//! An artifact as it is stored and shown; how tasks hand it on is the engine's.

use std::sync::Arc;

use ferroflow_pipeline_engine::artifact::Artifact;
use ferroflow_types::{Namespace, RunId, TaskId, Timestamp};

/// An artifact with what made it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredArtifact {
    /// The artifact.
    pub artifact: Arc<Artifact>,
    /// The run that made it.
    pub run: RunId,
    /// The task that made it.
    pub task: TaskId,
    /// When.
    pub created_at: Timestamp,
}

/// Which artifacts are listed.
#[derive(Debug, Clone)]
pub(crate) enum ArtifactFilter {
    /// Those of everybody in a namespace.
    Namespace(Namespace),
    /// Those of a run, also of one that is removed.
    Run(RunId),
    /// Those of a task.
    Task(TaskId),
}
