//! Recurring runs: creating, reading, enabling, disabling, removing. How they fire is
//! `app::schedules`.

use ferroflow_db::WriteTx;
use ferroflow_schedule::{DueTime, Limits, Progress, Schedule, ScheduleError, Trigger, When};
use ferroflow_service::listing::{ListRequest, listing};
use ferroflow_types::event::Subject;
use ferroflow_types::listing::Page;
use ferroflow_types::{
    Caller, CloudEvent, Error, ErrorKind, FieldViolation, RunId, Scope, Timestamp,
};
use serde_json::{Value, json};

use super::create_run::{self, CreateRun, PipelineSource};
use super::events::{self, Change};
use super::schedules::SCHEDULES;
use super::{Ctx, experiments, versions};
use crate::domain::definition::{Experiment, check_name};
use crate::domain::id::{ExperimentId, RecurringRunId};
use crate::domain::recurring::{NAME_MAX, PipelineChoice, RecurringRun};
use crate::domain::run::{RunError, Source};
use crate::store;

/// What a recurring run is created from.
#[derive(Debug, Clone)]
pub(crate) struct CreateRecurringRun {
    /// What its runs are made of; the names and the experiment are its own as well.
    pub run: CreateRun,
    /// When it is due.
    pub trigger: Trigger,
    /// How many runs at once, and what becomes of missed times.
    pub limits: Limits,
    /// Whether it begins enabled.
    pub enabled: bool,
}

/// A recurring run and, if it came with one, its specification.
pub(crate) struct FullRecurringRun {
    /// The recurring run.
    pub run: RecurringRun,
    /// The specification, when it was not created from a stored version.
    pub spec: Option<Value>,
}

/// The times at which a recurring run will be due.
pub(crate) struct DueTimes {
    /// One after another.
    pub times: Vec<Timestamp>,
    /// The zone of its wall clock, empty where none matters.
    pub zone: String,
}

pub(crate) fn not_found(id: RecurringRunId) -> Error {
    let message = format!("RecurringRun {id} not found");
    Error::not_found("RECURRING_RUN_NOT_FOUND", message)
}

/// Creates a recurring run.
pub(crate) async fn create_recurring_run(
    ctx: &Ctx,
    caller: &Caller,
    request: CreateRecurringRun,
) -> Result<RecurringRun, Error> {
    let now = ctx.now();
    let schedule = validated_schedule(ctx, &request, now)?;
    let CreateRecurringRun {
        run,
        trigger,
        limits,
        enabled,
    } = request;
    let requested = run.pipeline.clone();
    let checked = create_run::check(ctx, caller, run).await?;
    let (run, spec) = (&checked.request, &checked.spec);
    let pipeline = pipeline_choice(&requested, spec.source, &spec.digest);
    let mut tx = ctx.db.begin_write().await?;
    let experiment = create_run::resolve_experiment(ctx, &mut tx, caller, run.experiment).await?;
    if let Some(text) = &spec.text {
        store::specs::put(&mut tx, text).await?;
    }
    let change = Change::of(caller, now);
    let mut made = RecurringRun {
        id: RecurringRunId::new(ctx.ids.uuid()),
        namespace: experiment.namespace.clone(),
        experiment: experiment.id,
        display_name: run.display_name.clone(),
        description: run.description.clone(),
        pipeline,
        parameters: run.parameters.clone(),
        root_given: run.pipeline_root.clone(),
        service_account: create_run::service_account(&run.service_account).to_owned(),
        trigger,
        limits,
        enabled,
        error: None,
        created_at: now,
        updated_at: now,
        progress: Progress {
            cursor: schedule.cursor(),
            fired: 0,
        },
        next_due: schedule.next_after(schedule.cursor()),
        event_sequence: 0,
        created_by: change.author(),
    };
    let event = lifecycle_event(&mut made, "created", change);
    store::recurring_runs::insert(&mut tx, &made).await?;
    tx.publish(&event).await?;
    // Whoever fires schedules may sleep until a later due time.
    tx.signal(SCHEDULES);
    tx.commit().await?;
    Ok(made)
}

/// The schedule of a new recurring run, if everything about it is right.
fn validated_schedule(
    ctx: &Ctx,
    request: &CreateRecurringRun,
    now: Timestamp,
) -> Result<Schedule, Error> {
    let mut faults = Vec::new();
    let (field, name) = ("recurring_run.display_name", &request.run.display_name);
    check_name("Recurring run name", field, name, NAME_MAX, &mut faults);
    // Upstream has these limits too. A client that leaves the field out sends 0, which is refused.
    let most = request.limits.max_concurrency;
    if !(1..=10).contains(&most) {
        let problem = format!(
            "Max concurrency of a recurring run must be at least 1 and at most 10. Received {most}"
        );
        faults.push(FieldViolation::new(
            "recurring_run.max_concurrency",
            problem,
        ));
    }
    let schedule = Schedule::new(&request.trigger, now, &ctx.settings.zone)
        .and_then(|schedule| schedule.check_fires().map(|()| schedule));
    match schedule {
        Ok(schedule) if faults.is_empty() => return Ok(schedule),
        Ok(_) => {}
        Err(error) => {
            let field = violation_field(&error, &request.trigger.when);
            faults.push(FieldViolation::new(field, error.to_string()));
        }
    }
    Err(Error::violations(
        "RECURRING_RUN_INVALID",
        "Invalid input error",
        faults,
    ))
}

const INTERVAL: &str = "recurring_run.trigger.periodic_schedule.interval_second";

/// The field that makes a schedule impossible.
fn violation_field(error: &ScheduleError, when: &When) -> &'static str {
    match error {
        ScheduleError::NeverFires if matches!(when, When::Periodic(_)) => INTERVAL,
        ScheduleError::Cron(_) | ScheduleError::NeverFires => {
            "recurring_run.trigger.cron_schedule.cron"
        }
        ScheduleError::InvalidInterval(_) => INTERVAL,
        ScheduleError::EndNotAfterStart { .. } | ScheduleError::EndsBeforeFirst { .. } => {
            "recurring_run.trigger.end_time"
        }
    }
}

fn pipeline_choice(requested: &PipelineSource, source: Source, digest: &str) -> PipelineChoice {
    let digest = digest.to_owned();
    match (requested, source) {
        (PipelineSource::Reference { version: None, .. }, Source::Version { pipeline, .. }) => {
            PipelineChoice::Latest { pipeline }
        }
        (_, Source::Version { pipeline, version }) => PipelineChoice::Version {
            pipeline,
            version,
            digest,
        },
        (_, Source::Inline) => PipelineChoice::Inline { digest },
    }
}

/// The event that tells of a recurring run.
fn lifecycle_event(run: &mut RecurringRun, verb: &str, change: Change<'_>) -> CloudEvent {
    event(run, verb, None, change)
}

/// The event that tells that a due time has made the run `made`.
pub(super) fn triggered_event(
    run: &mut RecurringRun,
    due: DueTime,
    made: RunId,
    now: Timestamp,
) -> CloudEvent {
    event(run, "triggered", Some((due, made)), Change::automatic(now))
}

fn event(
    run: &mut RecurringRun,
    verb: &str,
    made: Option<(DueTime, RunId)>,
    change: Change<'_>,
) -> CloudEvent {
    run.event_sequence += 1;
    let id = run.id.to_string();
    let subject = Subject {
        namespace: &run.namespace,
        path: format!("recurringruns/{id}"),
        key: id.clone(),
        sequence: run.event_sequence,
    };
    let error = run.error.as_ref();
    let mut data = json!({
        "recurring_run_id": id,
        "display_name": run.display_name,
        "experiment_id": run.experiment.to_string(),
        "status": if run.enabled { "ENABLED" } else { "DISABLED" },
        "error": error.map_or("", |error| error.message.as_str()),
    });
    if let Some((due, made)) = made {
        data["run_id"] = json!(made.to_string());
        data["scheduled_at"] = json!(due.at.to_string());
        data["index"] = json!(due.index);
    }
    events::event(subject, change, ("recurring-run", verb), data)
}

/// The recurring run of this id.
pub(crate) async fn get_recurring_run(
    ctx: &Ctx,
    caller: &Caller,
    id: RecurringRunId,
) -> Result<FullRecurringRun, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = store::recurring_runs::get(&mut tx, caller, id).await?;
    let run = found.ok_or_else(|| not_found(id))?;
    let spec = match &run.pipeline {
        PipelineChoice::Inline { digest } => {
            let spec = store::specs::get(&mut tx, digest).await?;
            Some(versions::document(&spec)?)
        }
        PipelineChoice::Version { .. } | PipelineChoice::Latest { .. } => None,
    };
    Ok(FullRecurringRun { run, spec })
}

/// A page of recurring runs, of one experiment or all.
pub(crate) async fn list_recurring_runs(
    ctx: &Ctx,
    caller: &Caller,
    namespace: &str,
    experiment: Option<ExperimentId>,
    request: &ListRequest,
) -> Result<Page<RecurringRun>, Error> {
    let listing = listing(request)?;
    let mut tx = ctx.db.begin_read().await?;
    let within = experiments::within(&mut tx, caller, namespace, experiment).await?;
    let table = &store::recurring_runs::TABLE;
    ferroflow_db::list::list(
        &mut tx,
        table,
        &within,
        &listing,
        store::recurring_runs::decode,
    )
    .await
}

/// The next times at which a recurring run will be due, whether it is enabled or not.
pub(crate) async fn due_times(
    ctx: &Ctx,
    caller: &Caller,
    id: RecurringRunId,
    count: usize,
) -> Result<DueTimes, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = store::recurring_runs::get(&mut tx, caller, id).await?;
    let run = found.ok_or_else(|| not_found(id))?;
    drop(tx);
    let schedule = schedule_of(ctx, &run)?;
    // What is due already and waits for a slot is not listed as a time to come.
    let from = run.progress.cursor.max(ctx.now());
    let due = |at: &Timestamp| schedule.next_after(*at);
    let times = std::iter::successors(due(&from), due);
    Ok(DueTimes {
        times: times.take(count).collect(),
        zone: schedule
            .zone()
            .map_or_else(String::new, |zone| zone.name().to_owned()),
    })
}

/// The schedule of a stored recurring run.
pub(super) fn schedule_of(ctx: &Ctx, run: &RecurringRun) -> Result<Schedule, Error> {
    Schedule::new(&run.trigger, run.created_at, &ctx.settings.zone)
        .map_err(|error| Error::invalid("SCHEDULE_INVALID", error.to_string()))
}

/// Lets a recurring run create runs, or no longer; runs under way go on.
pub(crate) async fn set_enabled(
    ctx: &Ctx,
    caller: &Caller,
    id: RecurringRunId,
    enabled: bool,
) -> Result<(), Error> {
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    let found = store::recurring_runs::lock(&mut tx, caller, id).await?;
    let mut run = found.ok_or_else(|| not_found(id))?;
    // As upstream, asking for the state that it has is no error; no event is published.
    if run.enabled == enabled {
        return Ok(());
    }
    if enabled {
        // A deleted experiment leaves its schedules behind, disabled. A run needs one to be created
        // in, so the next due time would stop the schedule again.
        if store::experiments::get(&mut tx, caller, run.experiment)
            .await?
            .is_none()
        {
            let message = format!(
                "RecurringRun {id} cannot be enabled: its experiment {} is deleted. Create it anew \
                 in another one",
                run.experiment
            );
            let kind = ErrorKind::Precondition;
            return Err(Error::new(kind, "EXPERIMENT_NOT_FOUND", message));
        }
        // From the cursor and not from now: times that were missed while it was
        // disabled are caught up with.
        run.next_due = schedule_of(ctx, &run)?.next_after(run.progress.cursor);
        run.error = None;
    }
    let verb = if enabled { "enabled" } else { "disabled" };
    write_enabled(&mut tx, &mut run, enabled, verb, Change::of(caller, now)).await?;
    Ok(tx.commit().await?)
}

async fn write_enabled(
    tx: &mut WriteTx,
    run: &mut RecurringRun,
    enabled: bool,
    verb: &str,
    change: Change<'_>,
) -> Result<(), Error> {
    run.enabled = enabled;
    run.updated_at = change.at;
    let event = lifecycle_event(run, verb, change);
    store::recurring_runs::set(tx, run).await?;
    tx.publish(&event).await?;
    tx.signal(SCHEDULES);
    Ok(())
}

/// Disables one that cannot go on, and keeps the reason. `snapshot` is what the reason was found
/// for: if it was changed since, or its pipeline got its first version, it is left to the next look.
pub(super) async fn stop(
    ctx: &Ctx,
    scope: &impl Scope,
    snapshot: &RecurringRun,
    reason: &Error,
) -> Result<(), Error> {
    let (now, id) = (ctx.now(), snapshot.id);
    let mut tx = ctx.db.begin_write().await?;
    let found = store::recurring_runs::lock(&mut tx, scope, id).await?;
    let same = |run: &RecurringRun| run.enabled && run.event_sequence == snapshot.event_sequence;
    let Some(mut run) = found.filter(same) else {
        return Ok(());
    };
    if let PipelineChoice::Latest { pipeline } = run.pipeline
        && reason.reason() == create_run::NO_VERSION
        && let Some(pipeline) = store::pipelines::get(&mut tx, scope, pipeline).await?
        && store::versions::latest(&mut tx, &pipeline).await?.is_some()
    {
        return Ok(());
    }
    // gRPC's NOT_FOUND, FAILED_PRECONDITION and INVALID_ARGUMENT. No error of another kind is a
    // reason to stop (`schedules::is_final`).
    let code = match reason.kind() {
        ErrorKind::NotFound => 5,
        ErrorKind::Precondition => 9,
        _ => 3,
    };
    let due = run
        .next_due
        .map_or_else(String::new, |due| format!(" due at {due}"));
    let message = format!("stopped, because the run{due} cannot be created: {reason}");
    tracing::warn!(recurring_run = %id, error = message, "a recurring run stopped");
    run.error = Some(RunError { code, message });
    write_enabled(&mut tx, &mut run, false, "stopped", Change::automatic(now)).await?;
    Ok(tx.commit().await?)
}

/// Disables those of an experiment that is put away, in its transaction.
pub(super) async fn disable_of_experiment(
    tx: &mut WriteTx,
    caller: &Caller,
    experiment: &Experiment,
    now: Timestamp,
) -> Result<(), Error> {
    for id in store::recurring_runs::enabled_of_experiment(tx, experiment).await? {
        let found = store::recurring_runs::lock(tx, caller, id).await?;
        // Looked at again under its lock: it may have been disabled or deleted
        // since the ids were read.
        if let Some(mut run) = found.filter(|run| run.enabled) {
            write_enabled(tx, &mut run, false, "disabled", Change::of(caller, now)).await?;
        }
    }
    Ok(())
}

/// Removes a recurring run; its runs stay, also those under way.
pub(crate) async fn delete_recurring_run(
    ctx: &Ctx,
    caller: &Caller,
    id: RecurringRunId,
) -> Result<(), Error> {
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    let found = store::recurring_runs::lock(&mut tx, caller, id).await?;
    let mut run = found.ok_or_else(|| not_found(id))?;
    store::recurring_runs::delete(&mut tx, id).await?;
    let event = lifecycle_event(&mut run, "deleted", Change::of(caller, now));
    tx.publish(&event).await?;
    Ok(tx.commit().await?)
}
