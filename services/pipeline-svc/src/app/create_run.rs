//! A new run: from a stored version or a specification that comes with the request.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_db::WriteTx;
use ferroflow_pipeline_engine::macros::Macros;
use ferroflow_pipeline_engine::plan::Plan;
use ferroflow_pipeline_engine::{run_parameters, values};
use ferroflow_types::{
    Caller, Error, ErrorKind, FieldViolation, RunId, Scope, Timestamp, ValueLimit,
};
use serde_json::{Map, Value};

use super::events::{self, Change};
use super::spec_file::{self, SpecFile};
use super::{Ctx, experiments, pipelines, plans, root, versions};
use crate::domain::definition::{Experiment, RUN_NAME_MAX, check_name};
use crate::domain::id::{ExperimentId, PipelineId, PipelineVersionId, RecurringRunId};
use crate::domain::run::{Run, RunStatus, Source, StatusChange, StorageState};
use crate::domain::spec::SpecText;
use crate::store;
use crate::store::ownership::Claim;

/// What a run is created from.
#[derive(Debug, Clone)]
pub(crate) struct CreateRun {
    /// The client's own id for it; a second request with it gives the first run.
    pub id: Option<RunId>,
    /// For people; need not be unique.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// The folder; the default one when not given.
    pub experiment: Option<ExperimentId>,
    /// The pipeline.
    pub pipeline: PipelineSource,
    /// Values of its parameters.
    pub parameters: Map<String, Value>,
    /// Where artifacts go, empty for the usual place.
    pub pipeline_root: String,
    /// Kept for the clients that set it.
    pub service_account: String,
    /// When it was due, if a scheduler of the client's own says so.
    pub scheduled_at: Option<Timestamp>,
}

/// The pipeline of a new run.
#[derive(Debug, Clone)]
pub(crate) enum PipelineSource {
    /// A stored version, or the newest one of a pipeline.
    Reference {
        /// The pipeline.
        pipeline: Option<PipelineId>,
        /// The version.
        version: Option<PipelineVersionId>,
    },
    /// A specification.
    Inline(Value),
    /// A specification that is stored already, also when its version is deleted.
    StoredSpec {
        /// Where it came from.
        source: Source,
        /// Its digest.
        digest: String,
    },
}

/// The specification of a new run.
pub(super) struct ResolvedSpec {
    pub source: Source,
    plan: Arc<Plan>,
    pub digest: String,
    /// To be stored, when it is a new one.
    pub text: Option<SpecText>,
}

/// A request that was found good; any number of runs can be made of it.
pub(super) struct CheckedRequest {
    pub request: CreateRun,
    pub spec: ResolvedSpec,
    parameters: BTreeMap<String, Value>,
    root: String,
}

/// What tells the runs of one request apart.
pub(super) struct RunInstance {
    pub id: RunId,
    pub display_name: String,
    /// The schedule that makes it.
    pub recurring_run: Option<RecurringRunId>,
    /// When it was due.
    pub scheduled_at: Option<Timestamp>,
    /// Its number among the schedule's runs.
    pub index: Option<i64>,
    /// The subject of who wants it.
    pub created_by: String,
}

/// The pipeline has no version yet.
pub(super) const NO_VERSION: &str = "PIPELINE_HAS_NO_VERSION";

/// The installation has no store for the root that the run or its pipeline names.
pub(super) const ROOT_UNSUPPORTED: &str = "PIPELINE_ROOT_UNSUPPORTED";

/// A parameter is larger than the installation's `value_max`.
pub(super) const VALUE_TOO_LARGE: &str = "VALUE_TOO_LARGE";

/// What KFP calls the account of runs that name none.
const SERVICE_ACCOUNT: &str = "pipeline-runner";

/// Creates a run; it is driven as soon as it is stored.
pub(crate) async fn create_run(
    ctx: &Ctx,
    caller: &Caller,
    request: CreateRun,
) -> Result<Run, Error> {
    let mut faults = Vec::new();
    let (field, name) = ("run.display_name", &request.display_name);
    check_name("Run name", field, name, RUN_NAME_MAX, &mut faults);
    if !faults.is_empty() {
        return Err(Error::violations(
            "RUN_INVALID",
            "Invalid input error",
            faults,
        ));
    }
    // Before the transaction: on SQLite one writes at a time, and plans of large
    // specifications take a while.
    let checked = check(ctx, caller, request).await?;
    match store_run(ctx, caller, &checked).await {
        // Another request with this id was faster, and now its run is found. One of another namespace
        // is not seen there, and the id is refused as taken.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            store_run(ctx, caller, &checked).await
        }
        result => result,
    }
}

/// Checks what a run is to be made of: the pipeline, its parameters, where artifacts go.
pub(super) async fn check(
    ctx: &Ctx,
    scope: &impl Scope,
    request: CreateRun,
) -> Result<CheckedRequest, Error> {
    let spec = match request.pipeline.clone() {
        PipelineSource::Reference { pipeline, version } => {
            resolve_reference(ctx, scope, pipeline, version).await?
        }
        PipelineSource::Inline(value) => resolve_inline(ctx, &spec_file::from_json(value)?)?,
        PipelineSource::StoredSpec { source, digest } => {
            resolve_stored_spec(ctx, source, digest).await?
        }
    };
    let parameters = run_parameters::check(&spec.plan, &request.parameters)
        .map_err(|faults| Error::violations("PARAMETERS_INVALID", "Invalid input error", faults))?;
    check_sizes(&parameters, ctx.settings.values)?;
    let root = pipeline_root(ctx, &request, &spec.plan)?;
    Ok(CheckedRequest {
        request,
        spec,
        parameters,
        root,
    })
}

/// Refuses values that are larger than a value may be.
fn check_sizes(parameters: &BTreeMap<String, Value>, limit: ValueLimit) -> Result<(), Error> {
    let faults: Vec<_> = values::too_large(parameters, limit)
        .map(|(name, problem)| {
            FieldViolation::new(format!("runtime_config.parameters.{name}"), problem)
        })
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::violations(
        VALUE_TOO_LARGE,
        "Invalid input error",
        faults,
    ))
}

/// Stores the run, or finds the one that the same request made before. This replica drives it if it
/// has room.
async fn store_run(ctx: &Ctx, caller: &Caller, checked: &CheckedRequest) -> Result<Run, Error> {
    let change = Change::of(caller, ctx.now());
    let request = &checked.request;
    let mut tx = ctx.db.begin_write().await?;
    // An id of its own lets a client repeat a request whose answer was lost: the first run is the
    // answer, whatever the second request says.
    if let Some(id) = request.id
        && let Some(existing) = store::runs::get(&mut tx, caller, id).await?
    {
        return Ok(existing);
    }
    let experiment = resolve_experiment(ctx, &mut tx, caller, request.experiment).await?;
    let instance = RunInstance {
        id: request.id.unwrap_or_else(|| RunId::new(ctx.ids.uuid())),
        display_name: request.display_name.clone(),
        recurring_run: None,
        scheduled_at: request.scheduled_at,
        index: None,
        created_by: change.author(),
    };
    let (run, claim) = insert_run(ctx, &mut tx, checked, &experiment, instance, change).await?;
    tx.commit().await?;
    // After the commit, because the actor reads the run. If the process dies before that, the row
    // names this replica as the owner, and it is found by that (`Ownership::wake`).
    if let Some(claim) = claim {
        ctx.ownership.wake(claim).await;
    }
    Ok(run)
}

/// Adds a run with its event. The claim is to be handed to the driver once this is committed; there
/// is none where the replica has no room, and then the run is anybody's.
pub(super) async fn insert_run(
    ctx: &Ctx,
    tx: &mut WriteTx,
    checked: &CheckedRequest,
    experiment: &Experiment,
    instance: RunInstance,
    change: Change<'_>,
) -> Result<(Run, Option<Claim>), Error> {
    let now = change.at;
    let macros = Macros {
        run: &instance.id.to_string(),
        now,
        scheduled: instance.scheduled_at,
        index: instance.index,
    };
    let mut run = new_run(checked, experiment, instance, now);
    // `check` has measured the values. Measuring takes time inside the write transaction, so it is done
    // again only if a macro made a value longer.
    let expanded = run_parameters::expand_macros(&mut run.parameters, &macros);
    if expanded {
        check_sizes(&run.parameters, ctx.settings.values)?;
    }
    if let Some(text) = &checked.spec.text {
        store::specs::put(tx, text).await?;
    }
    // Before the insert: it raises the number of events, which the row keeps.
    let event = events::run_status_event(&mut run, change);
    let owner = ctx.ownership.owner_of_new();
    let owned_here = !owner.is_empty();
    store::runs::insert(tx, &run, owner).await?;
    store::experiments::touch(tx, experiment.id, now).await?;
    tx.publish(&event).await?;
    if !owned_here {
        ctx.ownership.signal_unowned(tx);
    }
    let claim = owned_here.then_some(Claim::first(run.id));
    Ok((run, claim))
}

fn new_run(
    checked: &CheckedRequest,
    experiment: &Experiment,
    instance: RunInstance,
    now: Timestamp,
) -> Run {
    let CheckedRequest {
        request,
        spec,
        parameters,
        root,
    } = checked;
    let account = &request.service_account;
    Run {
        id: instance.id,
        namespace: experiment.namespace.clone(),
        experiment: experiment.id,
        display_name: instance.display_name,
        description: request.description.clone(),
        storage: StorageState::Available,
        status: RunStatus::Pending,
        source: spec.source,
        recurring_run: instance.recurring_run,
        spec_digest: spec.digest.clone(),
        pipeline_name: spec.plan.name.clone(),
        parameters_given: request.parameters.clone(),
        parameters: parameters.clone(),
        root_given: request.pipeline_root.clone(),
        root: root.clone(),
        service_account: service_account(account).to_owned(),
        caching: true,
        created_at: now,
        scheduled_at: instance.scheduled_at.unwrap_or(now),
        started_at: None,
        finished_at: None,
        error: None,
        history: vec![StatusChange {
            at: now,
            status: RunStatus::Pending,
        }],
        traceparent: ferroflow_service::telemetry::current_traceparent().unwrap_or_default(),
        event_sequence: 0,
        created_by: instance.created_by,
    }
}

/// The account that a run shows when it was given this one.
pub(super) fn service_account(given: &str) -> &str {
    if given.is_empty() {
        SERVICE_ACCOUNT
    } else {
        given
    }
}

async fn resolve_stored_spec(
    ctx: &Ctx,
    source: Source,
    digest: String,
) -> Result<ResolvedSpec, Error> {
    let plan = ctx.plans.get_or_build(&ctx.db, &digest).await?;
    Ok(ResolvedSpec {
        source,
        plan,
        digest,
        text: None,
    })
}

async fn resolve_reference(
    ctx: &Ctx,
    scope: &impl Scope,
    pipeline: Option<PipelineId>,
    version: Option<PipelineVersionId>,
) -> Result<ResolvedSpec, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = match (version, pipeline) {
        // As upstream, a version that is named goes before the newest one of the pipeline.
        (Some(id), _) => versions::find(&mut tx, scope, id).await?,
        (None, Some(id)) => {
            let pipeline = pipelines::find(&mut tx, scope, id).await?;
            let latest = store::versions::latest(&mut tx, &pipeline).await?;
            latest.ok_or_else(|| {
                let message = format!("Pipeline {id} has no version to run");
                Error::invalid(NO_VERSION, message)
            })?
        }
        (None, None) => {
            return Err(Error::invalid(
                "RUN_INVALID",
                "a pipeline, a version or a pipeline_spec is needed",
            ));
        }
    };
    if let Some(requested) = pipeline
        && requested != found.pipeline
    {
        let message = format!(
            "PipelineVersion {} is not one of pipeline {requested}",
            found.id
        );
        return Err(Error::invalid("VERSION_OF_ANOTHER_PIPELINE", message));
    }
    // Given back first, as `get_or_build` takes a connection of its own.
    drop(tx);
    let plan = ctx.plans.get_or_build(&ctx.db, &found.spec_digest).await?;
    let source = Source::Version {
        pipeline: found.pipeline,
        version: found.id,
    };
    Ok(ResolvedSpec {
        source,
        plan,
        digest: found.spec_digest,
        text: None,
    })
}

fn resolve_inline(ctx: &Ctx, file: &SpecFile) -> Result<ResolvedSpec, Error> {
    let (text, plan) = plans::check(file)?;
    let digest = text.digest.clone();
    let plan = ctx.plans.insert(&digest, plan);
    Ok(ResolvedSpec {
        source: Source::Inline,
        plan,
        digest,
        text: Some(text),
    })
}

/// Where artifacts go: the run's root, the pipeline's, the installation's.
fn pipeline_root(ctx: &Ctx, request: &CreateRun, plan: &Plan) -> Result<String, Error> {
    let given = Some(&request.pipeline_root).filter(|root| !root.is_empty());
    let Some(root) = given.or(plan.default_pipeline_root.as_ref()) else {
        return Ok(ctx.settings.pipeline_root.clone());
    };
    let problem = match root::validate(root, &*ctx.runtime, &ctx.stores) {
        Ok(root) => return Ok(root),
        Err(problem) => format!("{problem}, or leave it out"),
    };
    let field = match given {
        Some(_) => "runtime_config.pipeline_root",
        None => "defaultPipelineRoot",
    };
    let faults = vec![FieldViolation::new(field, problem)];
    Err(Error::violations(
        ROOT_UNSUPPORTED,
        "Invalid input error",
        faults,
    ))
}

/// The experiment that a request names, or the default one of the caller's namespace.
pub(super) async fn resolve_experiment(
    ctx: &Ctx,
    tx: &mut WriteTx,
    caller: &Caller,
    id: Option<ExperimentId>,
) -> Result<Experiment, Error> {
    match id {
        None => experiments::default_experiment(ctx, tx, &caller.namespace("")?).await,
        Some(id) => experiments::find(tx, caller, id).await,
    }
}
