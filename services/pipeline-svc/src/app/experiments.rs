//! Experiments: folders of runs.

use ferroflow_db::list::ScopeFilter;
use ferroflow_db::{Read, WriteTx};
use ferroflow_service::listing::{ListRequest, listing};
use ferroflow_types::event::Subject;
use ferroflow_types::listing::Page;
use ferroflow_types::{Access, Caller, CloudEvent, Error, ErrorKind, Namespace, Scope, Timestamp};
use serde_json::json;

use super::events::{self, Change};
use super::{Ctx, recurring_runs};
use crate::domain::definition::{EXPERIMENT_NAME_MAX, Experiment, check_name};
use crate::domain::id::ExperimentId;
use crate::domain::run::StorageState;
use crate::store;

// The words of upstream. The SDK, too, puts runs into an experiment of this
// name unless told otherwise.
const DEFAULT_NAME: &str = "Default";
const DEFAULT_DESCRIPTION: &str =
    "All runs created without specifying an experiment will be grouped here.";

/// What an experiment is created from.
#[derive(Debug, Clone, Default)]
pub(crate) struct CreateExperiment {
    /// Its name.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// The tenant, as the client says it.
    pub namespace: String,
}

/// Creates an experiment.
pub(crate) async fn create_experiment(
    ctx: &Ctx,
    caller: &Caller,
    request: CreateExperiment,
) -> Result<Experiment, Error> {
    let mut faults = Vec::new();
    let field = "experiment.display_name";
    check_name(
        "Experiment name",
        field,
        &request.display_name,
        EXPERIMENT_NAME_MAX,
        &mut faults,
    );
    if !faults.is_empty() {
        return Err(Error::violations(
            "EXPERIMENT_INVALID",
            "Invalid input error",
            faults,
        ));
    }
    let change = Change::of(caller, ctx.now());
    let namespace = caller.namespace(&request.namespace)?;
    let mut experiment = new_experiment(
        ctx,
        namespace,
        request.display_name,
        request.description,
        change,
    );
    let mut tx = ctx.db.begin_write().await?;
    store::experiments::put(&mut tx, &experiment).await.map_err(|error| {
        name_taken(error, format!(
            "Failed to create a new experiment. The name {} already exists. Please specify a new name",
            experiment.display_name
        ))
    })?;
    publish_event(&mut tx, &mut experiment, "created", change).await?;
    tx.commit().await?;
    Ok(experiment)
}

/// A database error, or that a name is taken.
pub(crate) fn name_taken(error: ferroflow_db::DbError, message: String) -> Error {
    match error {
        error @ ferroflow_db::DbError::UniqueViolation { .. } => {
            Error::new(ErrorKind::AlreadyExists, "NAME_TAKEN", message).caused_by(error)
        }
        other => other.into(),
    }
}

fn new_experiment(
    ctx: &Ctx,
    namespace: Namespace,
    display_name: String,
    description: String,
    change: Change<'_>,
) -> Experiment {
    Experiment {
        id: ExperimentId::new(ctx.ids.uuid()),
        namespace,
        display_name,
        description,
        storage: StorageState::Available,
        is_default: false,
        created_at: change.at,
        // KFP always sends this time: the epoch stands for "no run yet".
        last_run_created_at: Timestamp::EPOCH,
        event_sequence: 0,
        created_by: change.author(),
    }
}

async fn publish_event(
    tx: &mut WriteTx,
    experiment: &mut Experiment,
    verb: &str,
    change: Change<'_>,
) -> Result<(), Error> {
    let event = experiment_event(experiment, verb, change);
    tx.publish(&event).await?;
    // Stores the number of the event. `put` is an upsert: it would bring a deleted row back.
    if verb != "deleted" {
        store::experiments::put(tx, experiment).await?;
    }
    Ok(())
}

fn experiment_event(experiment: &mut Experiment, verb: &str, change: Change<'_>) -> CloudEvent {
    experiment.event_sequence += 1;
    let id = experiment.id.to_string();
    let subject = Subject {
        namespace: &experiment.namespace,
        path: format!("experiments/{id}"),
        key: id.clone(),
        sequence: experiment.event_sequence,
    };
    let data = json!({"experiment_id": id, "display_name": experiment.display_name});
    events::event(subject, change, ("experiment", verb), data)
}

pub(super) fn not_found(id: ExperimentId) -> Error {
    Error::not_found("EXPERIMENT_NOT_FOUND", format!("Experiment {id} not found"))
}

/// The experiment of this id.
pub(crate) async fn get_experiment(
    ctx: &Ctx,
    caller: &Caller,
    id: ExperimentId,
) -> Result<Experiment, Error> {
    let mut tx = ctx.db.begin_read().await?;
    find(&mut tx, caller, id).await
}

/// The experiment of this id, if it is in the scope.
pub(super) async fn find(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: ExperimentId,
) -> Result<Experiment, Error> {
    let found = store::experiments::get(tx, scope, id).await?;
    found.ok_or_else(|| not_found(id))
}

/// Which rows a list shows: those of a namespace, or of one experiment in it.
pub(super) async fn within(
    tx: &mut impl Read,
    caller: &Caller,
    namespace: &str,
    experiment: Option<ExperimentId>,
) -> Result<ScopeFilter, Error> {
    let Some(experiment) = experiment else {
        return Ok(ScopeFilter::namespace(&caller.namespace(namespace)?));
    };
    let found = store::experiments::get(tx, caller, experiment).await?;
    let namespace = match (found, &caller.access) {
        (Some(found), _) => found.namespace,
        // Runs outlive their experiment, which is the only one to know the namespace. A single user
        // has one namespace only, so these runs can still be listed.
        (None, Access::SingleUser) => caller.namespace(namespace)?,
        (None, Access::Namespaces(_)) => return Err(not_found(experiment)),
    };
    Ok(ScopeFilter::namespace(&namespace).and("experiment_id", experiment))
}

/// A page of experiments.
pub(crate) async fn list_experiments(
    ctx: &Ctx,
    caller: &Caller,
    namespace: &str,
    request: &ListRequest,
) -> Result<Page<Experiment>, Error> {
    let listing = listing(request)?;
    let within = ScopeFilter::namespace(&caller.namespace(namespace)?);
    let mut tx = ctx.db.begin_read().await?;
    let table = &store::experiments::TABLE;
    ferroflow_db::list::list(
        &mut tx,
        table,
        &within,
        &listing,
        store::experiments::decode,
    )
    .await
}

/// Puts an experiment away with all its runs and without its schedules, or brings it back alone.
pub(crate) async fn set_storage(
    ctx: &Ctx,
    caller: &Caller,
    id: ExperimentId,
    storage: StorageState,
) -> Result<(), Error> {
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    tx.lock_row("experiments", id).await?;
    let mut experiment = find(&mut tx, caller, id).await?;
    if experiment.storage == storage {
        return Ok(());
    }
    experiment.storage = storage;
    let verb = match storage {
        StorageState::Archived => "archived",
        StorageState::Available => "unarchived",
    };
    if storage == StorageState::Archived {
        store::runs::archive_of_experiment(&mut tx, &experiment).await?;
        recurring_runs::disable_of_experiment(&mut tx, caller, &experiment, now).await?;
    }
    publish_event(&mut tx, &mut experiment, verb, Change::of(caller, now)).await?;
    Ok(tx.commit().await?)
}

/// Removes an experiment; its runs stay, its schedules are disabled.
pub(crate) async fn delete_experiment(
    ctx: &Ctx,
    caller: &Caller,
    id: ExperimentId,
) -> Result<(), Error> {
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    tx.lock_row("experiments", id).await?;
    let mut experiment = find(&mut tx, caller, id).await?;
    if experiment.is_default {
        let message = "The default experiment cannot be deleted";
        return Err(Error::new(
            ErrorKind::Conflict,
            "EXPERIMENT_IS_DEFAULT",
            message,
        ));
    }
    recurring_runs::disable_of_experiment(&mut tx, caller, &experiment, now).await?;
    store::experiments::delete(&mut tx, id).await?;
    publish_event(&mut tx, &mut experiment, "deleted", Change::of(caller, now)).await?;
    Ok(tx.commit().await?)
}

/// Sees to it that runs can be created without naming an experiment, before anybody asks.
pub(crate) async fn prepare_default(ctx: &Ctx) -> Result<(), Error> {
    let mut tx = ctx.db.begin_write().await?;
    default_experiment(ctx, &mut tx, &Namespace::single_user()).await?;
    Ok(tx.commit().await?)
}

/// The experiment of runs that name none: the one that was made for that, else the one that has its
/// name, else a new one.
pub(crate) async fn default_experiment(
    ctx: &Ctx,
    tx: &mut WriteTx,
    namespace: &Namespace,
) -> Result<Experiment, Error> {
    if let Some(found) = store::experiments::default_of(tx, namespace).await? {
        return Ok(found);
    }
    let change = Change::automatic(ctx.now());
    let (name, description) = (DEFAULT_NAME.to_owned(), DEFAULT_DESCRIPTION.to_owned());
    let candidate = new_experiment(ctx, namespace.clone(), name, description, change);
    store::experiments::ensure_default(tx, &candidate).await?;
    let found = store::experiments::default_of(tx, namespace).await?;
    let mut experiment = found.ok_or_else(|| {
        let message = "the default experiment was stored and is not there";
        Error::new(ErrorKind::Internal, "DEFAULT_EXPERIMENT_MISSING", message)
    })?;
    // It is another one if a client had made one of this name, or another transaction was faster.
    // Then there is no new event to publish.
    if experiment.id == candidate.id {
        publish_event(tx, &mut experiment, "created", change).await?;
    }
    Ok(experiment)
}
