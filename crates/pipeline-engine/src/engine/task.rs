//! What the engine knows of one task of a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_types::{TaskId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifact::Artifact;
use crate::plan::{ComponentIx, TaskSpecIx};

/// The place of a task in the run's state; only valid inside one `RunState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskIx(pub u32);

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Waits for other tasks.
    Pending,
    /// Everything it waits for is there; the cache is asked or a free slot awaited.
    Queued,
    /// Works, or its children do.
    Running,
    /// Failed and waits for the next attempt.
    Backoff,
    /// Ended well.
    Succeeded,
    /// Ended well with the result of an earlier task.
    Cached,
    /// Its condition was false.
    NotTriggered,
    /// What it waits for can no longer come.
    Omitted,
    /// Ended badly.
    Failed,
    /// Ended because the run was cancelled.
    Canceled,
}

impl TaskState {
    /// Whether nothing more happens to it, short of a retry of the run.
    pub fn ended(self) -> bool {
        match self {
            Self::Pending | Self::Queued | Self::Running | Self::Backoff => false,
            Self::Succeeded
            | Self::Cached
            | Self::NotTriggered
            | Self::Omitted
            | Self::Failed
            | Self::Canceled => true,
        }
    }

    /// Whether its outputs may be used.
    pub(crate) fn succeeded(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cached)
    }

    const ALL: [Self; 10] = [
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::Backoff,
        Self::Succeeded,
        Self::Cached,
        Self::NotTriggered,
        Self::Omitted,
        Self::Failed,
        Self::Canceled,
    ];

    /// The state that `as_str` printed.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The word in SQL and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Succeeded => "succeeded",
            Self::Cached => "cached",
            Self::NotTriggered => "not-triggered",
            Self::Omitted => "omitted",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// Why a task failed, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskError {
    /// A stable word: `ExitCode`, `Timeout`, `Input`, …
    pub reason: String,
    /// What happened, and the way out where there is one.
    pub message: String,
    /// How the command exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last lines of its log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
}

impl TaskError {
    /// An error that has neither exit code nor log.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            exit_code: None,
            log_tail: String::new(),
        }
    }
}

/// The values that go into a task or come out of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Values {
    /// Parameters by name; none is null.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// Artifacts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, Vec<Arc<Artifact>>>,
}

/// What the cache said of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheNote {
    /// What was looked for.
    pub fingerprint: String,
    /// Why the result was or was not reused, a sentence.
    pub reason: String,
    /// Whether the answer is still awaited.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) looking: bool,
    /// Whose result it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<CacheSource>,
}

/// The task whose result was reused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheSource {
    /// The run it belongs to.
    pub run: String,
    /// The task.
    pub task: TaskId,
}

/// One entry of a task's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// To what.
    pub state: TaskState,
}

/// How a loop gets on; only in memory, rebuilt from the iterations after a crash.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoopProgress {
    /// One item per iteration; an artifact loop has nulls.
    pub items: Vec<Value>,
    /// The iterations so far, by number.
    pub iterations: Vec<TaskIx>,
    /// How many of them have been started since the loop (re)started.
    pub started: usize,
    /// How many of those have not ended.
    pub open: usize,
    /// One has failed: no further one starts.
    pub failed: bool,
}

/// What a task is in the graph.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Role {
    /// The run itself.
    Root,
    /// A task of the parent's DAG.
    Task(TaskSpecIx),
    /// One iteration of the parent loop.
    Iteration(u32),
}

/// One task of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Derived from the run and the path.
    pub id: TaskId,
    /// Task keys and iteration numbers from `root`, joined by dots.
    pub path: String,
    /// The DAG or loop that it is in.
    pub parent: Option<TaskIx>,
    /// What it is in the parent.
    pub(crate) role: Role,
    /// What it executes.
    pub component: ComponentIx,
    /// Where it stands.
    pub state: TaskState,
    /// The number of the attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Failed attempts that count against the retry policy.
    pub failures: u32,
    /// Attempts whose launcher vanished (a reboot, an OOM kill); these do not count as failures.
    pub lost: u32,
    /// Resolved inputs; emptied in memory once a command has ended.
    pub inputs: Values,
    /// Outputs, once it has ended.
    pub outputs: Values,
    /// Why it failed.
    pub error: Option<TaskError>,
    /// What the cache said.
    pub cache: Option<CacheNote>,
    /// Why its command has not begun, as the runtime says; empty when nothing is in the way.
    pub note: String,
    /// What it asks for and does not get where it runs.
    pub remarks: Vec<String>,
    /// When it became known to the run.
    pub created_at: Timestamp,
    /// When it first left the queue.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the next attempt is due, in [`TaskState::Backoff`].
    pub retry_at: Option<Timestamp>,
    /// Each state it was in.
    pub history: Vec<Change>,
    /// The first of its DAG's tasks; they follow one another.
    pub children: Option<TaskIx>,
    /// How many children have not ended.
    pub(crate) open_children: u32,
    /// How many tasks it still waits for.
    pub waiting: u32,
    /// Set while it is a loop that was started.
    pub progress: Option<Box<LoopProgress>>,
}

impl Task {
    /// A task that waits.
    pub(crate) fn pending(
        id: TaskId,
        path: String,
        parent: Option<TaskIx>,
        role: Role,
        component: ComponentIx,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            path,
            parent,
            role,
            component,
            state: TaskState::Pending,
            attempt: 0,
            failures: 0,
            lost: 0,
            inputs: Values::default(),
            outputs: Values::default(),
            error: None,
            cache: None,
            note: String::new(),
            remarks: Vec::new(),
            created_at: now,
            started_at: None,
            finished_at: None,
            retry_at: None,
            history: vec![Change {
                at: now,
                state: TaskState::Pending,
            }],
            children: None,
            open_children: 0,
            waiting: 0,
            progress: None,
        }
    }

    /// The number of the iteration that it is, for iterations.
    pub(crate) fn iteration(&self) -> Option<u32> {
        match self.role {
            Role::Iteration(number) => Some(number),
            Role::Root | Role::Task(_) => None,
        }
    }
}
