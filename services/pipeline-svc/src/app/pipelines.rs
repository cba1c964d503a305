//! Pipelines: names for specifications that come in versions.

use ferroflow_db::list::ScopeFilter;
use ferroflow_db::{Read, WriteTx};
use ferroflow_service::listing::{ListRequest, listing};
use ferroflow_types::event::Subject;
use ferroflow_types::listing::Page;
use ferroflow_types::{Caller, Error, ErrorKind, Scope};
use serde_json::json;

use super::events::{self, Change};
use super::experiments::name_taken;
use super::spec_file::SpecFile;
use super::versions::{self, NewVersion};
use super::{Ctx, plans};
use crate::domain::definition::{
    PIPELINE_NAME_MAX, Pipeline, Tags, check_display_name, check_name, check_tags,
};
use crate::domain::id::PipelineId;
use crate::store;

/// What a pipeline is created from.
#[derive(Debug, Clone, Default)]
pub(crate) struct CreatePipeline {
    /// Its name.
    pub name: String,
    /// For people; the name when empty.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// The tenant, as the client says it.
    pub namespace: String,
    /// Its labels.
    pub tags: Tags,
    /// Where the first version's source is.
    pub code_source_url: String,
    /// Where the first version was fetched from.
    pub package_url: String,
    /// The first version's labels.
    pub version_tags: Tags,
}

/// Creates a pipeline, with its first version when there is a specification.
pub(crate) async fn create_pipeline(
    ctx: &Ctx,
    caller: &Caller,
    mut request: CreatePipeline,
    file: Option<&SpecFile>,
) -> Result<Pipeline, Error> {
    // As upstream, either name stands in for the other one.
    if request.name.is_empty() {
        request.name.clone_from(&request.display_name);
    }
    if request.display_name.is_empty() {
        request.display_name.clone_from(&request.name);
    }
    let mut faults = Vec::new();
    check_name(
        "Pipeline.Name",
        "name",
        &request.name,
        PIPELINE_NAME_MAX,
        &mut faults,
    );
    check_display_name(&request.display_name, &mut faults);
    check_tags(&request.tags, &mut faults);
    check_tags(&request.version_tags, &mut faults);
    if !faults.is_empty() {
        return Err(Error::violations(
            "PIPELINE_INVALID",
            "Invalid input error",
            faults,
        ));
    }
    let namespace = caller.namespace(&request.namespace)?;
    let checked = file.map(plans::check).transpose()?;
    let change = Change::of(caller, ctx.now());
    let mut pipeline = Pipeline {
        id: PipelineId::new(ctx.ids.uuid()),
        namespace,
        name: request.name,
        display_name: request.display_name,
        description: request.description,
        tags: request.tags,
        created_at: change.at,
        event_sequence: 0,
        created_by: change.author(),
    };
    let mut tx = ctx.db.begin_write().await?;
    store::pipelines::put(&mut tx, &pipeline).await.map_err(|error| {
        name_taken(error, format!(
            "Failed to create a new pipeline. The name {} already exists. Please specify a new name",
            pipeline.name
        ))
    })?;
    publish_event(&mut tx, &mut pipeline, "created", change).await?;
    if let Some((spec, plan)) = checked {
        let new = NewVersion {
            name: pipeline.name.clone(),
            display_name: pipeline.display_name.clone(),
            description: pipeline.description.clone(),
            code_source_url: request.code_source_url,
            package_url: request.package_url,
            tags: request.version_tags,
        };
        versions::add(ctx, &mut tx, &pipeline, new, &spec, change).await?;
        // A plan follows from its digest alone, so it may stay in memory if the commit fails.
        ctx.plans.insert(&spec.digest, plan);
    }
    tx.commit().await?;
    Ok(pipeline)
}

pub(crate) async fn publish_event(
    tx: &mut WriteTx,
    pipeline: &mut Pipeline,
    verb: &str,
    change: Change<'_>,
) -> Result<(), Error> {
    pipeline.event_sequence += 1;
    let id = pipeline.id.to_string();
    let subject = Subject {
        namespace: &pipeline.namespace,
        path: format!("pipelines/{id}"),
        key: id.clone(),
        sequence: pipeline.event_sequence,
    };
    let data = json!({
        "pipeline_id": id, "name": pipeline.name, "display_name": pipeline.display_name,
    });
    tx.publish(&events::event(subject, change, ("pipeline", verb), data))
        .await?;
    // Stores the number of the event. `put` is an upsert: it would bring a deleted row back.
    if verb != "deleted" {
        store::pipelines::put(tx, pipeline).await?;
    }
    Ok(())
}

pub(crate) fn not_found(id: PipelineId) -> Error {
    Error::not_found("PIPELINE_NOT_FOUND", format!("Pipeline {id} not found"))
}

/// The pipeline of this id.
pub(crate) async fn get_pipeline(
    ctx: &Ctx,
    caller: &Caller,
    id: PipelineId,
) -> Result<Pipeline, Error> {
    let mut tx = ctx.db.begin_read().await?;
    find(&mut tx, caller, id).await
}

/// The pipeline of this id, if it is in the scope.
pub(super) async fn find(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: PipelineId,
) -> Result<Pipeline, Error> {
    let found = store::pipelines::get(tx, scope, id).await?;
    found.ok_or_else(|| not_found(id))
}

/// The pipeline of this name.
pub(crate) async fn get_pipeline_by_name(
    ctx: &Ctx,
    caller: &Caller,
    namespace: &str,
    name: &str,
) -> Result<Pipeline, Error> {
    let namespace = caller.namespace(namespace)?;
    let mut tx = ctx.db.begin_read().await?;
    let found = store::pipelines::by_name(&mut tx, &namespace, name).await?;
    found
        .ok_or_else(|| Error::not_found("PIPELINE_NOT_FOUND", format!("Pipeline {name} not found")))
}

/// A page of pipelines.
pub(crate) async fn list_pipelines(
    ctx: &Ctx,
    caller: &Caller,
    namespace: &str,
    request: &ListRequest,
) -> Result<Page<Pipeline>, Error> {
    let listing = listing(request)?;
    let within = ScopeFilter::namespace(&caller.namespace(namespace)?);
    let mut tx = ctx.db.begin_read().await?;
    let table = &store::pipelines::TABLE;
    ferroflow_db::list::list(&mut tx, table, &within, &listing, store::pipelines::decode).await
}

/// Changes what may change: an empty name stays, `None` keeps the tags.
pub(crate) async fn update_pipeline(
    ctx: &Ctx,
    caller: &Caller,
    id: PipelineId,
    display_name: String,
    tags: Option<Tags>,
) -> Result<Pipeline, Error> {
    let mut faults = Vec::new();
    check_display_name(&display_name, &mut faults);
    check_tags(tags.as_ref().unwrap_or(&Tags::new()), &mut faults);
    if !faults.is_empty() {
        return Err(Error::violations(
            "PIPELINE_INVALID",
            "Invalid input error",
            faults,
        ));
    }
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    tx.lock_row("pipelines", id).await?;
    let mut pipeline = find(&mut tx, caller, id).await?;
    if !display_name.is_empty() {
        pipeline.display_name = display_name;
    }
    if let Some(tags) = tags {
        pipeline.tags = tags;
    }
    publish_event(&mut tx, &mut pipeline, "updated", Change::of(caller, now)).await?;
    tx.commit().await?;
    Ok(pipeline)
}

/// Removes a pipeline; one that has versions only with `cascade`.
pub(crate) async fn delete_pipeline(
    ctx: &Ctx,
    caller: &Caller,
    id: PipelineId,
    cascade: bool,
) -> Result<(), Error> {
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    tx.lock_row("pipelines", id).await?;
    let mut pipeline = find(&mut tx, caller, id).await?;
    if !cascade && store::versions::latest(&mut tx, &pipeline).await?.is_some() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "PIPELINE_HAS_VERSIONS",
            format!(
                "Pipeline {id} has existing pipeline versions. Set cascade=true to delete them as \
                 well, or delete them first"
            ),
        ));
    }
    store::pipelines::delete(&mut tx, id).await?;
    publish_event(&mut tx, &mut pipeline, "deleted", Change::of(caller, now)).await?;
    Ok(tx.commit().await?)
}
