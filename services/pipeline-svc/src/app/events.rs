//! The events of runs and tasks; written in the transaction of the change.
//!
//! All events of one run have one key and are counted by the run, so they arrive in order.

use ferroflow_pipeline_engine::engine::task::{TaskIx, TaskState};
use ferroflow_pipeline_engine::engine::{RunState, Transition};
use ferroflow_pipeline_engine::task_path;
use ferroflow_service::service::Service as _;
use ferroflow_types::event::{Publisher, Subject};
use ferroflow_types::{Caller, CloudEvent, Principal, Timestamp};
use serde_json::{Value, json};

use crate::PipelineSvc;
use crate::domain::run::{Run, RunStatus};

const PUBLISHER: Publisher = Publisher {
    service: PipelineSvc::NAME,
    domain: PipelineSvc::DOMAIN,
};

/// A change of something: when, and who asked for it, if anybody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    pub at: Timestamp,
    pub by: Option<&'a Principal>,
}

impl<'a> Change<'a> {
    /// One that the caller asked for.
    pub(crate) fn of(caller: &'a Caller, at: Timestamp) -> Self {
        let by = Some(&caller.principal);
        Self { at, by }
    }

    /// One that nobody asked for at the moment.
    pub(crate) fn automatic(at: Timestamp) -> Self {
        Self { at, by: None }
    }

    /// Who asked for it, empty for nobody.
    pub(crate) fn author(self) -> String {
        self.by.map_or_else(String::new, |by| by.subject.clone())
    }
}

/// An event of `noun` and `verb`.
pub(crate) fn event(
    subject: Subject<'_>,
    change: Change<'_>,
    (noun, verb): (&str, &str),
    data: Value,
) -> CloudEvent {
    let name = format!("{noun}.{verb}");
    let event = PUBLISHER
        .event(subject, &name, change.at, data)
        .with_traceparent(ferroflow_service::telemetry::current_traceparent());
    match change.by {
        Some(principal) => event.with_principal(principal),
        None => event,
    }
}

/// An event of a run, for example `deleted`.
pub(crate) fn run_event(run: &mut Run, change: Change<'_>, verb: &str) -> CloudEvent {
    run.event_sequence += 1;
    let subject = Subject {
        namespace: &run.namespace,
        path: format!("runs/{}", run.id),
        key: run.id.to_string(),
        sequence: run.event_sequence,
    };
    let data = json!({
        "run_id": run.id.to_string(),
        "display_name": run.display_name,
        "experiment_id": run.experiment.to_string(),
        "pipeline_name": run.pipeline_name,
        "state": run.status.as_str(),
        "error": run.error.as_ref().map_or("", |error| error.message.as_str()),
    });
    event(subject, change, ("run", verb), data)
}

/// The event that tells of a run's new status.
pub(crate) fn run_status_event(run: &mut Run, change: Change<'_>) -> CloudEvent {
    let verb = match run.status {
        RunStatus::Pending => "created",
        // Only a retry leads from a final status back to RUNNING.
        RunStatus::Running if run.history.iter().any(|change| change.status.ended()) => "retried",
        RunStatus::Running => "started",
        RunStatus::Succeeded => "succeeded",
        RunStatus::Failed => "failed",
        RunStatus::Canceling => "canceling",
        RunStatus::Canceled => "canceled",
    };
    run_event(run, change, verb)
}

/// The event that tells of a task's new state, if it is one that is told.
pub(crate) fn task_state_event(
    run: &mut Run,
    state: &RunState,
    transition: &Transition,
    now: Timestamp,
) -> Option<CloudEvent> {
    let verb = match transition.state {
        TaskState::Pending | TaskState::Queued => return None,
        TaskState::Running => "started",
        TaskState::Backoff => "retrying",
        TaskState::Succeeded => "succeeded",
        TaskState::Cached => "cached",
        TaskState::NotTriggered | TaskState::Omitted => "skipped",
        TaskState::Failed => "failed",
        TaskState::Canceled => "canceled",
    };
    let status = (transition.state, transition.attempt);
    Some(task_event(run, state, transition.task, status, verb, now))
}

/// The event that tells what a task's command waits for; its `note` is empty for nothing any more.
pub(crate) fn task_waiting_event(
    run: &mut Run,
    state: &RunState,
    ix: TaskIx,
    now: Timestamp,
) -> CloudEvent {
    let task = state.task(ix);
    let mut event = task_event(run, state, ix, (task.state, task.attempt), "waiting", now);
    event.data["note"] = json!(task.note);
    event
}

fn task_event(
    run: &mut Run,
    state: &RunState,
    ix: TaskIx,
    (task_state, attempt): (TaskState, u32),
    verb: &str,
    now: Timestamp,
) -> CloudEvent {
    let task = state.task(ix);
    run.event_sequence += 1;
    let subject = Subject {
        namespace: &run.namespace,
        path: format!("runs/{}/tasks/{}", run.id, task.id),
        key: run.id.to_string(),
        sequence: run.event_sequence,
    };
    let parent = task.parent.map(|parent| state.task(parent).id.to_string());
    let mut data = json!({
        "run_id": run.id.to_string(),
        "task_id": task.id.to_string(),
        "parent_task_id": parent.unwrap_or_default(),
        "name": task_path::name(&task.path),
        "path": task.path,
        "state": task_state.as_str(),
        "attempt": attempt,
        "error": task.error.as_ref().map_or("", |error| error.message.as_str()),
    });
    if !task.remarks.is_empty() {
        data["remarks"] = json!(task.remarks);
    }
    event(subject, Change::automatic(now), ("task", verb), data)
}
