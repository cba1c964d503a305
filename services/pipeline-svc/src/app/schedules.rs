//! How recurring runs fire. The run of a due time, the cursor that goes past it and the events of
//! both are one transaction, under a lock of the schedule's row: whoever is killed, and however many
//! replicas look, a due time makes one run.

use ferroflow_db::signal::Topic;
use ferroflow_schedule::{Schedule, advance};
use ferroflow_types::{Error, ErrorKind, RunId, Scope, Timestamp};

use super::create_run::{self, CheckedRequest, CreateRun, PipelineSource, RunInstance};
use super::events::Change;
use super::recurring_runs::{schedule_of, stop, triggered_event};
use super::{Ctx, experiments};
use crate::domain::id::RecurringRunId;
use crate::domain::recurring::{PipelineChoice, RecurringRun};
use crate::domain::run::Source;
use crate::store;
use crate::store::ownership::Claim;
pub(crate) use crate::store::recurring_runs::DueSince;

/// A schedule was changed, or a run of one has ended.
pub(crate) const SCHEDULES: Topic = Topic::new("schedules");

/// Schedules that are looked at together.
const PAGE_SIZE: i64 = 200;

/// Some schedules that are due now and have a slot, those after `after`.
pub(crate) async fn due(
    ctx: &Ctx,
    scope: &impl Scope,
    after: Option<DueSince>,
) -> Result<Vec<DueSince>, Error> {
    let mut tx = ctx.db.begin_read().await?;
    Ok(store::recurring_runs::due(&mut tx, scope, ctx.now(), after, PAGE_SIZE).await?)
}

/// When the next schedule will be due.
pub(crate) async fn next_due(ctx: &Ctx) -> Result<Option<Timestamp>, Error> {
    let mut tx = ctx.db.begin_read().await?;
    Ok(store::recurring_runs::next_due(&mut tx, ctx.now()).await?)
}

/// The request that a run of this schedule is made from.
fn run_request(run: &RecurringRun) -> CreateRun {
    let pipeline = match &run.pipeline {
        // A pinned version is run by its stored specification, which stays
        // when the version is deleted.
        PipelineChoice::Version {
            pipeline,
            version,
            digest,
        } => PipelineSource::StoredSpec {
            source: Source::Version {
                pipeline: *pipeline,
                version: *version,
            },
            digest: digest.clone(),
        },
        PipelineChoice::Latest { pipeline } => PipelineSource::Reference {
            pipeline: Some(*pipeline),
            version: None,
        },
        PipelineChoice::Inline { digest } => PipelineSource::StoredSpec {
            source: Source::Inline,
            digest: digest.clone(),
        },
    };
    // Ids, names and due times of the single runs are in their `RunInstance`.
    CreateRun {
        id: None,
        display_name: run.display_name.clone(),
        description: run.description.clone(),
        experiment: Some(run.experiment),
        pipeline,
        parameters: run.parameters.clone(),
        pipeline_root: run.root_given.clone(),
        service_account: run.service_account.clone(),
        scheduled_at: None,
    }
}

/// Makes the runs that are due of one schedule, as far as it has slots; how many. A schedule whose
/// runs can never be made stops.
pub(crate) async fn fire(
    ctx: &Ctx,
    scope: &impl Scope,
    id: RecurringRunId,
) -> Result<usize, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = store::recurring_runs::get(&mut tx, scope, id).await?;
    drop(tx);
    let Some(run) = found.filter(|run| run.enabled) else {
        return Ok(0);
    };
    // Without the lock, since the source, the parameters and the trigger of a schedule never change once
    // it is stored. `create_due_runs` reads again what may change.
    let made = match prepare(ctx, scope, &run).await {
        Ok((schedule, checked)) => create_due_runs(ctx, scope, id, &schedule, &checked).await,
        Err(error) => Err(error),
    };
    match made {
        Err(error) if is_final(&error) => stop(ctx, scope, &run, &error).await.map(|()| 0),
        made => made,
    }
}

/// Whether it would be the same at the next try. What a setting of the installation decides would
/// not: the schedule goes on once an operator has mended it.
fn is_final(error: &Error) -> bool {
    let is_request_error = matches!(
        error.kind(),
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Precondition
    );
    let setting_errors = [create_run::ROOT_UNSUPPORTED, create_run::VALUE_TOO_LARGE];
    is_request_error && !setting_errors.contains(&error.reason())
}

async fn prepare(
    ctx: &Ctx,
    scope: &impl Scope,
    run: &RecurringRun,
) -> Result<(Schedule, CheckedRequest), Error> {
    let schedule = schedule_of(ctx, run)?;
    let checked = create_run::check(ctx, scope, run_request(run)).await?;
    Ok((schedule, checked))
}

async fn create_due_runs(
    ctx: &Ctx,
    scope: &impl Scope,
    id: RecurringRunId,
    schedule: &Schedule,
    checked: &CheckedRequest,
) -> Result<usize, Error> {
    let mut tx = ctx.db.begin_write().await?;
    let found = store::recurring_runs::lock(&mut tx, scope, id).await?;
    let Some(mut run) = found.filter(|run| run.enabled) else {
        return Ok(0);
    };
    let experiment = experiments::find(&mut tx, scope, run.experiment).await?;
    let active = store::runs::count_active(&mut tx, &run).await?;
    // Read after the lock was waited for: a replica must not decide by an older time than the one
    // that held the lock before it.
    let now = ctx.now();
    let decided = advance(schedule, run.limits, run.progress, now, active);
    if decided.due.is_empty() && decided.next == run.next_due {
        return Ok(0);
    }
    let mut claims: Vec<Claim> = Vec::new();
    for &due in &decided.due {
        // The id follows from schedule and due time, so a client can work it out and use it
        // for a run of its own. If one does so after this look, the insert fails and the
        // schedule is tried again.
        let id_is_free = !store::runs::is_taken(&mut tx, run.run_id(due.at)).await?;
        let made = if id_is_free {
            run.run_id(due.at)
        } else {
            RunId::new(ctx.ids.uuid())
        };
        let event = triggered_event(&mut run, due, made, now);
        tx.publish(&event).await?;
        let instance = RunInstance {
            id: made,
            display_name: run.run_name(due.index),
            recurring_run: Some(id),
            scheduled_at: Some(due.at),
            index: Some(due.index),
            created_by: run.created_by.clone(),
        };
        let (_, claim) = create_run::insert_run(
            ctx,
            &mut tx,
            checked,
            &experiment,
            instance,
            Change::automatic(now),
        )
        .await?;
        claims.extend(claim);
    }
    run.progress = decided.progress;
    run.next_due = decided.next;
    store::recurring_runs::set(&mut tx, &run).await?;
    tx.commit().await?;
    for claim in claims {
        ctx.ownership.wake(claim).await;
    }
    let count = decided.due.len();
    metrics::counter!("ferroflow_pipelines_recurring_runs_triggered_total")
        .increment(u64::try_from(count).unwrap_or(0));
    Ok(count)
}

/// Computes again when each enabled schedule is due: zone data or the default zone may be others
/// than those of who wrote it down.
pub(crate) async fn refresh(ctx: &Ctx, scope: &impl Scope) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let mut tx = ctx.db.begin_read().await?;
        let page = store::recurring_runs::enabled_after(&mut tx, scope, &after, PAGE_SIZE).await?;
        drop(tx);
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.id.to_string();
        for run in page {
            match schedule_of(ctx, &run) {
                Ok(schedule) => update_next_due(ctx, scope, &run, &schedule).await?,
                Err(error) => stop(ctx, scope, &run, &error).await?,
            }
        }
    }
}

async fn update_next_due(
    ctx: &Ctx,
    scope: &impl Scope,
    run: &RecurringRun,
    schedule: &Schedule,
) -> Result<(), Error> {
    // Most are as they were, and then no row is locked.
    if schedule.next_after(run.progress.cursor) == run.next_due {
        return Ok(());
    }
    let mut tx = ctx.db.begin_write().await?;
    if let Some(mut run) = store::recurring_runs::lock(&mut tx, scope, run.id).await? {
        run.next_due = schedule.next_after(run.progress.cursor);
        store::recurring_runs::set(&mut tx, &run).await?;
    }
    Ok(tx.commit().await?)
}
