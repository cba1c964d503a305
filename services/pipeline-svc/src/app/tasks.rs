//! Tasks of runs: details and logs.

use std::sync::Arc;

use ferroflow_db::Read;
use ferroflow_launcher::{AttemptKey, OwnerKey};
use ferroflow_pipeline_engine::engine::TaskRow;
use ferroflow_pipeline_engine::engine::task::TaskState;
use ferroflow_pipeline_engine::plan::Plan;
use ferroflow_runtime::{LogRequest, LogStream, RuntimeError};
use ferroflow_types::{Caller, Error, ErrorKind, RunId, Scope, TaskId};
use serde_json::Value;

use super::{Ctx, runs};
use crate::store;

/// Every task of a run, and the plan that says what they are.
pub(crate) async fn list_tasks(
    ctx: &Ctx,
    caller: &Caller,
    run: RunId,
) -> Result<(Vec<TaskRow>, Arc<Plan>), Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = runs::find(&mut tx, caller, run).await?;
    let tasks = store::tasks::of_run(&mut tx, &found).await?;
    drop(tx);
    Ok((
        tasks,
        ctx.plans.get_or_build(&ctx.db, &found.spec_digest).await?,
    ))
}

fn not_found(id: TaskId) -> Error {
    Error::not_found("TASK_NOT_FOUND", format!("task {id} not found in this run"))
}

/// Refuses a task that is not in the scope.
pub(super) async fn check_exists(
    tx: &mut impl Read,
    scope: &impl Scope,
    task: TaskId,
) -> Result<(), Error> {
    if store::tasks::exists(tx, scope, task).await? {
        return Ok(());
    }
    Err(Error::not_found(
        "TASK_NOT_FOUND",
        format!("task {task} not found"),
    ))
}

/// A task of a run that the caller may see, and the owner of its attempts; it is the task that is
/// missing otherwise.
async fn find(
    tx: &mut impl Read,
    caller: &Caller,
    run: RunId,
    task: TaskId,
) -> Result<(OwnerKey, TaskRow), Error> {
    let run = store::runs::get(tx, caller, run).await?;
    let run = run.ok_or_else(|| not_found(task))?;
    let found = store::tasks::get(tx, &run, task).await?;
    let found = found.ok_or_else(|| not_found(task))?;
    Ok((super::owner(run.id, &run.namespace), found))
}

/// The value of a parameter that a task was given, or gave.
pub(crate) async fn read_parameter(
    ctx: &Ctx,
    caller: &Caller,
    run: RunId,
    task: TaskId,
    name: &str,
    output: bool,
) -> Result<Value, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let (_, found) = find(&mut tx, caller, run, task).await?;
    drop(tx);
    let (kind, mut values) = if output {
        ("output", found.outputs.parameters)
    } else {
        ("input", found.inputs.parameters)
    };
    values.remove(name).ok_or_else(|| {
        let message = format!("task {task} has no value of {kind} parameter {name}");
        Error::not_found("PARAMETER_NOT_FOUND", message)
    })
}

/// What a task's command printed, in its latest attempt or the one asked for.
pub(crate) async fn stream_logs(
    ctx: &Ctx,
    caller: &Caller,
    run: RunId,
    task: TaskId,
    attempt: u32,
    request: LogRequest,
) -> Result<LogStream, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let mut task = task;
    let (mut owner, mut found) = find(&mut tx, caller, run, task).await?;
    let cached = found.cache.take();
    if found.state == TaskState::Cached
        && let Some(source) = cached.and_then(|note| note.source)
    {
        // The log of a reused result is the log of the task that made it.
        let run = source.run.parse().unwrap_or(run);
        task = source.task;
        (owner, found) = find(&mut tx, caller, run, task).await?;
    }
    drop(tx);
    // 0 asks for the latest one. A task that has not begun has none yet, and is asked for its first.
    let attempt = if attempt == 0 {
        found.attempt.max(1)
    } else {
        attempt
    };
    let item = task.uuid();
    let key = AttemptKey {
        owner,
        item,
        attempt,
    };
    ctx.runtime
        .logs(&key, request)
        .await
        .map_err(|error| match error {
            RuntimeError::Unknown(_) => Error::not_found(
                "LOG_NOT_FOUND",
                format!("task {task} has no log of attempt {attempt}: its command has not started"),
            ),
            away @ RuntimeError::Unavailable { .. } => Error::new(
                ErrorKind::Unavailable,
                "LOG_UNAVAILABLE",
                "the log cannot be read now: the object store or the cluster does not answer",
            )
            .caused_by(away),
            other => Error::internal("cannot read the log", other),
        })
}
