//! Domain to protobuf.

use std::collections::HashMap;

use ferroflow_pipeline_engine::engine::TaskRow;
use ferroflow_pipeline_engine::engine::task::{TaskState, Values};
use ferroflow_pipeline_engine::task_path;
use ferroflow_proto::google::rpc;
use ferroflow_proto::json::{from_json, map_to_struct, timestamp};
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_types::limit::bytes_of;
use ferroflow_types::{Namespace, Timestamp};
use prost_types::Struct;
use serde_json::{Map, Value};

use super::elide::SizeBudget;
use crate::app::runs::FullRun;
use crate::app::versions::FullVersion;
use crate::domain::definition::{Experiment, Pipeline};
use crate::domain::run::{Run, RunStatus, Source, StatusChange, StorageState};

/// Times as KFP shows them: whole seconds.
pub(super) fn time(at: Timestamp) -> Option<prost_types::Timestamp> {
    Some(timestamp(at.seconds() * 1000))
}

/// A single-user installation shows no namespace.
pub(super) fn namespace(namespace: &Namespace) -> String {
    if *namespace == Namespace::single_user() {
        String::new()
    } else {
        namespace.to_string()
    }
}

pub(super) fn fields(value: &Value) -> Struct {
    match value {
        Value::Object(fields) => map_to_struct(fields),
        _ => Struct::default(),
    }
}

pub(super) fn experiment(found: &Experiment) -> pb::Experiment {
    pb::Experiment {
        experiment_id: found.id.to_string(),
        display_name: found.display_name.clone(),
        description: found.description.clone(),
        created_at: time(found.created_at),
        namespace: namespace(&found.namespace),
        storage_state: storage(found.storage),
        last_run_created_at: time(found.last_run_created_at),
    }
}

/// Experiments and runs have the same numbers for this.
fn storage(state: StorageState) -> i32 {
    match state {
        StorageState::Available => pb::run::StorageState::Available as i32,
        StorageState::Archived => pb::run::StorageState::Archived as i32,
    }
}

pub(super) fn pipeline(found: &Pipeline) -> pb::Pipeline {
    pb::Pipeline {
        pipeline_id: found.id.to_string(),
        name: found.name.clone(),
        display_name: found.display_name.clone(),
        description: found.description.clone(),
        created_at: time(found.created_at),
        namespace: namespace(&found.namespace),
        error: None,
        tags: found.tags.clone().into_iter().collect(),
    }
}

pub(super) fn version(found: &FullVersion) -> pb::PipelineVersion {
    let FullVersion { version, spec } = found;
    pb::PipelineVersion {
        pipeline_id: version.pipeline.to_string(),
        pipeline_version_id: version.id.to_string(),
        name: version.name.clone(),
        display_name: version.display_name.clone(),
        description: version.description.clone(),
        created_at: time(version.created_at),
        package_url: (!version.package_url.is_empty()).then(|| pb::Url {
            pipeline_url: version.package_url.clone(),
        }),
        pipeline_spec: Some(fields(spec)),
        error: None,
        code_source_url: version.code_source_url.clone(),
        tags: version.tags.clone().into_iter().collect(),
    }
}

/// A run without its tasks, as lists show it. The contract has no field that says what is left out, so
/// a text stands in its place.
pub(super) fn listed_run(found: &Run, budget: &mut SizeBudget) -> pb::Run {
    let mut shown = run(found, None);
    if let Some(config) = &mut shown.runtime_config {
        config.parameters = listed_parameters(&found.parameters_given, "GetRun", budget);
    }
    shown
}

/// Parameters, as lists show them; `rpc` answers with the ones that are left out.
pub(super) fn listed_parameters(
    given: &Map<String, Value>,
    rpc: &str,
    budget: &mut SizeBudget,
) -> HashMap<String, prost_types::Value> {
    let shown = given.iter().map(|(name, value)| {
        let bytes = bytes_of(value);
        let shown = if budget.try_take(bytes) {
            from_json(value)
        } else {
            let placeholder = format!("({bytes} bytes: {rpc} has the value)");
            from_json(&Value::String(placeholder))
        };
        (name.clone(), shown)
    });
    shown.collect()
}

/// A run without its tasks.
pub(super) fn run(found: &Run, spec: Option<&Value>) -> pb::Run {
    let source = match found.source {
        Source::Version { pipeline, version } => Some(
            pb::run::PipelineSource::PipelineVersionReference(pb::PipelineVersionReference {
                pipeline_id: pipeline.to_string(),
                pipeline_version_id: version.to_string(),
            }),
        ),
        Source::Inline => spec.map(|spec| pb::run::PipelineSource::PipelineSpec(fields(spec))),
    };
    let config = pb::RuntimeConfig {
        parameters: struct_fields(&found.parameters_given),
        pipeline_root: found.root_given.clone(),
    };
    // As upstream, there is no runtime_config where neither parameters nor a root were given.
    let has_config = !config.parameters.is_empty() || !config.pipeline_root.is_empty();
    pb::Run {
        experiment_id: found.experiment.to_string(),
        run_id: found.id.to_string(),
        display_name: found.display_name.clone(),
        storage_state: storage(found.storage),
        description: found.description.clone(),
        pipeline_source: source,
        runtime_config: has_config.then_some(config),
        service_account: found.service_account.clone(),
        created_at: time(found.created_at),
        scheduled_at: time(found.scheduled_at),
        // KFP always sends this time: the epoch until the run has ended.
        finished_at: time(found.finished_at.unwrap_or(Timestamp::EPOCH)),
        state: run_state(found.status) as i32,
        error: found
            .error
            .as_ref()
            .map(|error| status(error.code, &error.message)),
        run_details: None,
        recurring_run_id: found
            .recurring_run
            .map_or_else(String::new, |id| id.to_string()),
        state_history: found.history.iter().map(history).collect(),
        ..pb::Run::default()
    }
}

pub(super) fn struct_fields(map: &Map<String, Value>) -> HashMap<String, prost_types::Value> {
    map_to_struct(map).fields.into_iter().collect()
}

/// The stock SDK's waiter knows no `CANCELED` and would poll for ever, so a cancelled run reads as
/// failed with error code 1; its history tells the whole story.
fn run_state(status: RunStatus) -> pb::RuntimeState {
    match status {
        RunStatus::Canceled => pb::RuntimeState::Failed,
        other => exact_state(other),
    }
}

fn exact_state(status: RunStatus) -> pb::RuntimeState {
    match status {
        RunStatus::Pending => pb::RuntimeState::Pending,
        RunStatus::Running => pb::RuntimeState::Running,
        RunStatus::Succeeded => pb::RuntimeState::Succeeded,
        RunStatus::Failed => pb::RuntimeState::Failed,
        RunStatus::Canceling => pb::RuntimeState::Canceling,
        RunStatus::Canceled => pb::RuntimeState::Canceled,
    }
}

fn history(change: &StatusChange) -> pb::RuntimeStatus {
    let state = exact_state(change.status) as i32;
    pb::RuntimeStatus {
        update_time: time(change.at),
        state,
        error: None,
    }
}

pub(super) fn status(code: i32, message: &str) -> rpc::Status {
    rpc::Status {
        code,
        message: message.to_owned(),
        details: Vec::new(),
    }
}

/// A run with its tasks.
pub(super) fn full_run(found: &FullRun) -> pb::Run {
    let mut shown = run(&found.run, found.spec.as_ref());
    let run_id = found.run.id.to_string();
    let mut children: std::collections::HashMap<_, Vec<_>> = std::collections::HashMap::new();
    for task in &found.tasks {
        if let Some(parent) = task.parent {
            let child =
                pb::pipeline_task_detail::child_task::ChildTask::TaskId(task.id.to_string());
            let child = pb::pipeline_task_detail::ChildTask {
                child_task: Some(child),
            };
            children.entry(parent).or_default().push(child);
        }
    }
    let details = found.tasks.iter().map(|task| {
        let children = children.remove(&task.id).unwrap_or_default();
        task_detail(&run_id, task, children)
    });
    shown.run_details = Some(pb::RunDetails {
        task_details: details.collect(),
        ..pb::RunDetails::default()
    });
    shown
}

fn task_detail(
    run_id: &str,
    task: &TaskRow,
    child_tasks: Vec<pb::pipeline_task_detail::ChildTask>,
) -> pb::PipelineTaskDetail {
    let history = task.history.iter().map(|change| pb::RuntimeStatus {
        update_time: time(change.at),
        state: task_state(change.state) as i32,
        error: None,
    });
    let mut history: Vec<_> = history.collect();
    // KFP allows an error at a state that is not final, which says here what the task
    // waits for; 14 is UNAVAILABLE.
    if !task.note.is_empty()
        && let Some(now) = history.last_mut()
    {
        now.error = Some(status(14, &task.note));
    }
    pb::PipelineTaskDetail {
        run_id: run_id.to_owned(),
        task_id: task.id.to_string(),
        display_name: task_path::name(&task.path),
        create_time: time(task.created_at),
        start_time: task.started_at.and_then(time),
        end_time: task.finished_at.and_then(time),
        state: task_state(task.state) as i32,
        // KFP has no field for the end of the log, so it follows the message; 13 is INTERNAL.
        error: task.error.as_ref().map(|error| {
            let mut message = error.message.clone();
            if !error.log_tail.is_empty() {
                message = format!("{message}\n{}", error.log_tail);
            }
            status(13, &message)
        }),
        inputs: artifact_ids(&task.inputs),
        outputs: artifact_ids(&task.outputs),
        parent_task_id: task
            .parent
            .map(|parent| parent.to_string())
            .unwrap_or_default(),
        state_history: history,
        child_tasks,
        ..pb::PipelineTaskDetail::default()
    }
}

fn artifact_ids(values: &Values) -> std::collections::HashMap<String, pb::ArtifactList> {
    let lists = values.artifacts.iter().map(|(name, list)| {
        let artifact_ids = list.iter().map(|artifact| artifact.id).collect();
        (name.clone(), pb::ArtifactList { artifact_ids })
    });
    lists.collect()
}

fn task_state(state: TaskState) -> pb::RuntimeState {
    match state {
        TaskState::Pending | TaskState::Queued => pb::RuntimeState::Pending,
        TaskState::Running | TaskState::Backoff => pb::RuntimeState::Running,
        // A reused result is a success to whoever waits for it.
        TaskState::Succeeded | TaskState::Cached => pb::RuntimeState::Succeeded,
        TaskState::NotTriggered | TaskState::Omitted => pb::RuntimeState::Skipped,
        TaskState::Failed => pb::RuntimeState::Failed,
        TaskState::Canceled => pb::RuntimeState::Canceled,
    }
}
