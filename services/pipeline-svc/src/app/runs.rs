//! Runs: reading, stopping, retrying, putting away, removing.

use ferroflow_db::{DbError, Read};
use ferroflow_pipeline_engine::engine::TaskRow;
use ferroflow_service::listing::{ListRequest, listing};
use ferroflow_types::listing::Page;
use ferroflow_types::{Caller, Error, ErrorKind, RunId, Scope};

use super::events::{self, Change};
use super::{Ctx, experiments, versions};
use crate::domain::id::ExperimentId;
use crate::domain::request::{Refusal, Request};
use crate::domain::run::{Run, Source, StorageState};
use crate::store;

/// A run with its tasks and, if it came with one, its specification.
pub(crate) struct FullRun {
    /// The run.
    pub run: Run,
    /// Its tasks, parents before children.
    pub tasks: Vec<TaskRow>,
    /// The specification, when the run was not made from a stored version.
    pub spec: Option<serde_json::Value>,
}

pub(crate) fn not_found(id: RunId) -> Error {
    Error::not_found("RUN_NOT_FOUND", format!("Run {id} not found"))
}

/// The run of this id, if the caller may see it.
pub(super) async fn find(tx: &mut impl Read, scope: &impl Scope, id: RunId) -> Result<Run, Error> {
    let found = store::runs::get(tx, scope, id).await?;
    found.ok_or_else(|| not_found(id))
}

/// The run of this id with its tasks.
pub(crate) async fn get_run(ctx: &Ctx, caller: &Caller, id: RunId) -> Result<FullRun, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let run = find(&mut tx, caller, id).await?;
    let tasks = store::tasks::of_run(&mut tx, &run).await?;
    let spec = match run.source {
        Source::Version { .. } => None,
        Source::Inline => {
            let spec = store::specs::get(&mut tx, &run.spec_digest).await?;
            Some(versions::document(&spec)?)
        }
    };
    Ok(FullRun { run, tasks, spec })
}

/// A page of runs, of one experiment or all.
pub(crate) async fn list_runs(
    ctx: &Ctx,
    caller: &Caller,
    namespace: &str,
    experiment: Option<ExperimentId>,
    request: &ListRequest,
) -> Result<Page<Run>, Error> {
    let listing = listing(request)?;
    let mut tx = ctx.db.begin_read().await?;
    let within = experiments::within(&mut tx, caller, namespace, experiment).await?;
    let table = &store::runs::TABLE;
    ferroflow_db::list::list(&mut tx, table, &within, &listing, store::runs::decode).await
}

/// Stops a run.
pub(crate) async fn terminate_run(ctx: &Ctx, caller: &Caller, id: RunId) -> Result<(), Error> {
    ask(ctx, caller, id, Request::Cancel).await.map(drop)
}

/// Runs again what failed.
pub(crate) async fn retry_run(ctx: &Ctx, caller: &Caller, id: RunId) -> Result<(), Error> {
    ask(ctx, caller, id, Request::Retry).await.map(drop)
}

/// Asks whoever drives the run, if the caller may see it; the run as it was before.
async fn ask(ctx: &Ctx, caller: &Caller, id: RunId, request: Request) -> Result<Run, Error> {
    let mut tx = ctx.db.begin_read().await?;
    // The driver is not told who asks, so whether the caller may see the run is decided here.
    let run = find(&mut tx, caller, id).await?;
    drop(tx);
    let answer = ctx.ownership.ask(run.id, request).await?;
    answer.map_err(|refusal| refusal_error(run.id, refusal))?;
    Ok(run)
}

/// A refusal as its caller reads it.
fn refusal_error(run: RunId, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Missing => not_found(run),
        Refusal::Ended(status) => {
            let status = status.as_str();
            let message = format!("run {run} cannot be terminated: it is {status}");
            Error::invalid("RUN_ENDED", message)
        }
        Refusal::NotRetryable(status) => {
            let status = status.as_str();
            let message = format!(
                "run {run} cannot be retried: it is {status}, and only failed or canceled runs can"
            );
            Error::new(ErrorKind::Conflict, "RUN_NOT_RETRYABLE", message)
        }
    }
}

/// Removes a run and its logs; artifacts stay.
pub(crate) async fn delete_run(ctx: &Ctx, caller: &Caller, id: RunId) -> Result<(), Error> {
    let run = ask(ctx, caller, id, Request::Delete).await?;
    // After the run is removed: its driver has stopped the attempts, and none
    // begins in these folders.
    let owner = super::owner(id, &run.namespace);
    if let Err(error) = ctx.runtime.delete(&owner).await {
        // The run is deleted for its user all the same; what is left of it is told to the operator.
        tracing::warn!(run = %id, %error, "the folders of a deleted run are left");
    }
    Ok(())
}

/// Puts a run away or brings it back.
pub(crate) async fn set_storage(
    ctx: &Ctx,
    caller: &Caller,
    id: RunId,
    storage: StorageState,
) -> Result<(), Error> {
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    let mut run = find(&mut tx, caller, id).await?;
    if run.storage == storage {
        return Ok(());
    }
    if storage == StorageState::Available
        && let Some(experiment) = store::experiments::get(&mut tx, caller, run.experiment).await?
        && experiment.storage == StorageState::Archived
    {
        let message = format!(
            "Run {id} cannot be unarchived while its experiment {} is archived: unarchive the \
             experiment first",
            experiment.id
        );
        return Err(Error::new(
            ErrorKind::Precondition,
            "EXPERIMENT_ARCHIVED",
            message,
        ));
    }
    store::runs::set_storage(&mut tx, id, storage).await?;
    run.storage = storage;
    let verb = match storage {
        StorageState::Archived => "archived",
        StorageState::Available => "unarchived",
    };
    // The driver of an unfinished run numbers its events from what it has in memory, so a number that
    // is taken here would be given twice: only a run that has ended gets an event.
    if run.status.ended() {
        let event = events::run_event(&mut run, Change::of(caller, now), verb);
        // Meets no row if the run was retried meanwhile, as its driver has taken this number then.
        if !store::runs::set_event_sequence(&mut tx, &run).await? {
            return Err(DbError::Conflict { table: "runs" }.into());
        }
        tx.publish(&event).await?;
    }
    Ok(tx.commit().await?)
}
