//! A new run: from a stored version or a specification that comes with the request.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_db::WriteTx;
use ferroflow_types::limit::bytes_of;
use ferroflow_types::{
    Error, ErrorKind, ExperimentId, FieldViolation, PipelineId, PipelineVersionId, RunId,
    Timestamp, ValueLimit,
};
use serde_json::{Map, Value};

use super::drive::RUNS;
use super::spec_file::{self, SpecFile};
use super::{Ctx, events, experiments, pipelines, plans, root, versions};
use crate::domain::definition::{Experiment, RUN_NAME_MAX, check_name};
use crate::domain::plan::Plan;
use crate::domain::run::{Run, RunStatus, Source, StatusChange, StorageState};
use crate::domain::run_parameters;
use crate::domain::spec::SpecText;
use crate::store;
use crate::store::claims::{Claim, FIRST_FENCE};

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
}

/// The pipeline of a new run.
#[derive(Debug, Clone)]
pub(crate) enum PipelineSource {
    /// A stored version, or the newest one of a pipeline.
    Stored {
        /// The pipeline.
        pipeline: Option<PipelineId>,
        /// The version.
        version: Option<PipelineVersionId>,
    },
    /// A specification.
    Inline(Value),
}

/// The specification of a new run.
struct Specified {
    source: Source,
    plan: Arc<Plan>,
    digest: String,
    /// To be stored, when it is a new one.
    text: Option<SpecText>,
}

/// What KFP calls the account of runs that name none.
const SERVICE_ACCOUNT: &str = "pipeline-runner";

/// Creates a run; it is driven as soon as it is stored.
pub(crate) async fn create_run(ctx: &Ctx, request: CreateRun) -> Result<Run, Error> {
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
    let specified = match request.pipeline.clone() {
        PipelineSource::Stored { pipeline, version } => stored(ctx, pipeline, version).await?,
        PipelineSource::Inline(value) => inline(ctx, &spec_file::from_json(value)?)?,
    };
    let parameters = run_parameters::check(&specified.plan, &request.parameters)
        .map_err(|faults| Error::violations("PARAMETERS_INVALID", "Invalid input error", faults))?;
    check_sizes(&parameters, ctx.settings.values)?;
    let root = pipeline_root(ctx, &request, &specified.plan)?;
    match store_run(ctx, &request, &specified, &parameters, &root).await {
        // Another request made the same run, or the first default experiment, in this moment.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            store_run(ctx, &request, &specified, &parameters, &root).await
        }
        done => done,
    }
}

/// Refuses values that are larger than a value may be.
fn check_sizes(parameters: &BTreeMap<String, Value>, limit: ValueLimit) -> Result<(), Error> {
    let faults: Vec<_> = parameters
        .iter()
        .filter_map(|(name, value)| {
            let problem = limit.check(bytes_of(value)).err()?;
            let field = format!("runtime_config.parameters.{name}");
            Some(FieldViolation::new(field, problem))
        })
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let message = "Invalid input error";
    Err(Error::violations("PARAMETERS_INVALID", message, faults))
}

/// Stores the run, or finds the one that the same request made before. This replica drives it if it
/// has room.
async fn store_run(
    ctx: &Ctx,
    request: &CreateRun,
    specified: &Specified,
    parameters: &BTreeMap<String, Value>,
    root: &str,
) -> Result<Run, Error> {
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    if let Some(id) = request.id
        && let Some(first) = store::runs::get(&mut tx, id).await?
    {
        return Ok(first);
    }
    let experiment = experiment_of(ctx, &mut tx, request.experiment).await?;
    let mut run = new_run(
        ctx,
        request.clone(),
        specified,
        &experiment,
        root.to_owned(),
        now,
    );
    run.parameters.clone_from(parameters);
    run_parameters::expand_macros(&mut run.parameters, &run.id.to_string(), now);
    if let Some(text) = &specified.text {
        store::specs::put(&mut tx, text).await?;
    }
    let event = events::run_changed(&mut run, now);
    let here = ctx.driver.has_room();
    let owner = if here { ctx.replica.id.as_str() } else { "" };
    store::runs::insert(&mut tx, &run, owner).await?;
    store::experiments::touch(&mut tx, experiment.id, now).await?;
    tx.publish(&event).await?;
    if !here {
        ctx.driver.set_backlog(true);
        tx.signal(RUNS);
    }
    tx.commit().await?;
    if here {
        let (run, fence) = (run.id, FIRST_FENCE);
        ctx.driver.wake(Claim { run, fence }).await;
    }
    Ok(run)
}

fn new_run(
    ctx: &Ctx,
    request: CreateRun,
    specified: &Specified,
    experiment: &Experiment,
    root: String,
    now: Timestamp,
) -> Run {
    let account = request.service_account;
    Run {
        id: request.id.unwrap_or_else(|| RunId::new(ctx.ids.uuid())),
        namespace: experiment.namespace.clone(),
        experiment: experiment.id,
        display_name: request.display_name,
        description: request.description,
        storage: StorageState::Available,
        status: RunStatus::Pending,
        source: specified.source,
        recurring_run: None,
        spec_digest: specified.digest.clone(),
        pipeline_name: specified.plan.name.clone(),
        parameters_given: request.parameters,
        parameters: BTreeMap::new(),
        root_given: request.pipeline_root,
        root,
        service_account: if account.is_empty() {
            SERVICE_ACCOUNT.to_owned()
        } else {
            account
        },
        caching: true,
        created_at: now,
        scheduled_at: now,
        started_at: None,
        finished_at: None,
        error: None,
        history: vec![StatusChange {
            at: now,
            status: RunStatus::Pending,
        }],
        traceparent: ferroflow_service::telemetry::current_traceparent().unwrap_or_default(),
        event_sequence: 0,
    }
}

async fn stored(
    ctx: &Ctx,
    pipeline: Option<PipelineId>,
    version: Option<PipelineVersionId>,
) -> Result<Specified, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = match (version, pipeline) {
        (Some(id), _) => store::versions::get(&mut tx, id)
            .await?
            .ok_or_else(|| versions::missing(id))?,
        (None, Some(id)) => {
            store::pipelines::get(&mut tx, id)
                .await?
                .ok_or_else(|| pipelines::missing(id))?;
            store::versions::latest(&mut tx, id).await?.ok_or_else(|| {
                let message = format!("Pipeline {id} has no version to run");
                Error::invalid("PIPELINE_HAS_NO_VERSION", message)
            })?
        }
        (None, None) => {
            return Err(Error::invalid(
                "RUN_INVALID",
                "a pipeline, a version or a pipeline_spec is needed",
            ));
        }
    };
    if let Some(asked) = pipeline
        && asked != found.pipeline
    {
        let message = format!(
            "PipelineVersion {} is not one of pipeline {asked}",
            found.id
        );
        return Err(Error::invalid("VERSION_OF_ANOTHER_PIPELINE", message));
    }
    drop(tx);
    let plan = ctx.plans.of_digest(&ctx.db, &found.spec_digest).await?;
    let source = Source::Version {
        pipeline: found.pipeline,
        version: found.id,
    };
    Ok(Specified {
        source,
        plan,
        digest: found.spec_digest,
        text: None,
    })
}

fn inline(ctx: &Ctx, file: &SpecFile) -> Result<Specified, Error> {
    let (text, plan) = plans::check(file)?;
    let digest = text.digest.clone();
    let plan = ctx.plans.keep(&digest, plan);
    Ok(Specified {
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
    let problem = match root::checked(root, &*ctx.runtime, &ctx.stores) {
        Ok(root) => return Ok(root),
        Err(problem) => format!("{problem}, or leave it out"),
    };
    let field = match given {
        Some(_) => "runtime_config.pipeline_root",
        None => "defaultPipelineRoot",
    };
    let faults = vec![FieldViolation::new(field, problem)];
    Err(Error::violations(
        "PIPELINE_ROOT_UNSUPPORTED",
        "Invalid input error",
        faults,
    ))
}

async fn experiment_of(
    ctx: &Ctx,
    tx: &mut WriteTx,
    id: Option<ExperimentId>,
) -> Result<Experiment, Error> {
    match id {
        None => experiments::default_experiment(ctx, tx, &ctx.namespace("")).await,
        Some(id) => store::experiments::get(tx, id).await?.ok_or_else(|| {
            let message = format!("Experiment {id} not found");
            Error::new(ErrorKind::NotFound, "EXPERIMENT_NOT_FOUND", message)
        }),
    }
}
