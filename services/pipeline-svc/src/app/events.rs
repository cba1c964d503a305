//! The events of runs and tasks; written in the transaction of the change.
//!
//! All events of one run have one key and are counted by the run, so they arrive in order.

use ferroflow_pipeline_engine::engine::node::{NodeIx, NodeState};
use ferroflow_pipeline_engine::engine::{RunState, Transition};
use ferroflow_pipeline_engine::task_path;
use ferroflow_types::id::EventId;
use ferroflow_types::{CloudEvent, Namespace, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::run::{Run, RunStatus};

/// The log of everything about pipelines.
const TOPIC: &str = "ferroflow.pipelines.v1";

/// Who says so.
const SOURCE: &str = "//ferroflow/pipeline-svc";

/// What an event is about.
pub(crate) struct Subject<'a> {
    /// The tenant.
    pub namespace: &'a Namespace,
    /// For example `runs/<id>/tasks/<id>`.
    pub path: String,
    /// The object whose events keep their order.
    pub key: String,
    /// Counts the events of the key.
    pub sequence: i64,
}

/// An event of `noun` and `verb`. Its id is derived from key and sequence: the same change told
/// twice is one event.
pub(crate) fn event(
    subject: Subject<'_>,
    noun: &str,
    verb: &str,
    now: Timestamp,
    data: Value,
) -> CloudEvent {
    let Subject {
        namespace,
        path,
        key,
        sequence,
    } = subject;
    let key = format!("{namespace}/{key}");
    let name = format!("{SOURCE}/{key}/{sequence}");
    CloudEvent {
        id: EventId::new(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())),
        topic: TOPIC.to_owned(),
        event_type: format!("ai.ferroflow.{noun}.{verb}"),
        source: SOURCE.to_owned(),
        subject: format!("namespaces/{namespace}/{path}"),
        namespace: namespace.to_string(),
        key,
        sequence,
        time: now,
        traceparent: ferroflow_service::telemetry::current_traceparent(),
        data,
    }
}

/// An event of a run, for example `deleted`.
pub(crate) fn run_event(run: &mut Run, verb: &str, now: Timestamp) -> CloudEvent {
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
    event(subject, "run", verb, now, data)
}

/// The event that tells of a run's new status.
pub(crate) fn run_changed(run: &mut Run, now: Timestamp) -> CloudEvent {
    let verb = match run.status {
        RunStatus::Pending => "created",
        RunStatus::Running if run.history.iter().any(|change| change.status.ended()) => "retried",
        RunStatus::Running => "started",
        RunStatus::Succeeded => "succeeded",
        RunStatus::Failed => "failed",
        RunStatus::Canceling => "canceling",
        RunStatus::Canceled => "canceled",
    };
    run_event(run, verb, now)
}

/// The event that tells of a task's new state, if it is one that is told.
pub(crate) fn task_changed(
    run: &mut Run,
    state: &RunState,
    transition: &Transition,
    now: Timestamp,
) -> Option<CloudEvent> {
    let verb = match transition.state {
        NodeState::Pending | NodeState::Queued => return None,
        NodeState::Running => "started",
        NodeState::Backoff => "retrying",
        NodeState::Succeeded => "succeeded",
        NodeState::Cached => "cached",
        NodeState::NotTriggered | NodeState::Omitted => "skipped",
        NodeState::Failed => "failed",
        NodeState::Canceled => "canceled",
    };
    let (node, told) = (transition.node, (transition.state, transition.attempt));
    Some(task_event(run, state, node, told, verb, now))
}

/// The event that tells what a task's command waits for; its `note` is empty for nothing any more.
pub(crate) fn task_waits(
    run: &mut Run,
    state: &RunState,
    ix: NodeIx,
    now: Timestamp,
) -> CloudEvent {
    let node = state.node(ix);
    let mut told = task_event(run, state, ix, (node.state, node.attempt), "waiting", now);
    told.data["note"] = json!(node.note);
    told
}

fn task_event(
    run: &mut Run,
    state: &RunState,
    ix: NodeIx,
    (stands, attempt): (NodeState, u32),
    verb: &str,
    now: Timestamp,
) -> CloudEvent {
    let node = state.node(ix);
    run.event_sequence += 1;
    let subject = Subject {
        namespace: &run.namespace,
        path: format!("runs/{}/tasks/{}", run.id, node.id),
        key: run.id.to_string(),
        sequence: run.event_sequence,
    };
    let parent = node.parent.map(|parent| state.node(parent).id.to_string());
    let mut data = json!({
        "run_id": run.id.to_string(),
        "task_id": node.id.to_string(),
        "parent_task_id": parent.unwrap_or_default(),
        "name": task_path::name(&node.path),
        "path": node.path,
        "state": stands.as_str(),
        "attempt": attempt,
        "error": node.error.as_ref().map_or("", |error| error.message.as_str()),
    });
    if !node.remarks.is_empty() {
        data["remarks"] = json!(node.remarks);
    }
    event(subject, "task", verb, now, data)
}
