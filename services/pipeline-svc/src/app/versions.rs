//! Versions of pipelines: immutable uploads.

use ferroflow_db::list::ScopeFilter;
use ferroflow_db::{Read, WriteTx};
use ferroflow_service::listing::{ListRequest, listing};
use ferroflow_types::event::Subject;
use ferroflow_types::listing::Page;
use ferroflow_types::{Caller, Error, Scope};
use serde_json::{Value, json};

use super::events::{self, Change};
use super::experiments::name_taken;
use super::spec_file::SpecFile;
use super::{Ctx, pipelines, plans};
use crate::domain::definition::{
    Pipeline, Tags, VERSION_NAME_MAX, Version, check_display_name, check_name, check_tags,
};
use crate::domain::id::{PipelineId, PipelineVersionId};
use crate::domain::spec::SpecText;
use crate::store;

/// What a version is created from, beside its specification.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewVersion {
    /// Its name.
    pub name: String,
    /// For people; the name when empty.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// Where its source is.
    pub code_source_url: String,
    /// Where it was fetched from, empty for an upload.
    pub package_url: String,
    /// Its labels.
    pub tags: Tags,
}

/// A version with its specification.
pub(crate) struct FullVersion {
    /// The version.
    pub version: Version,
    /// The PipelineSpec, or `{pipeline_spec, platform_spec}`.
    pub spec: Value,
}

/// Adds a version to a pipeline.
pub(crate) async fn create_version(
    ctx: &Ctx,
    caller: &Caller,
    pipeline: PipelineId,
    mut new: NewVersion,
    file: &SpecFile,
) -> Result<FullVersion, Error> {
    // As upstream, either name stands in for the other one.
    if new.name.is_empty() {
        new.name.clone_from(&new.display_name);
    }
    if new.display_name.is_empty() {
        new.display_name.clone_from(&new.name);
    }
    let mut faults = Vec::new();
    check_name(
        "PipelineVersion.Name",
        "name",
        &new.name,
        VERSION_NAME_MAX,
        &mut faults,
    );
    check_display_name(&new.display_name, &mut faults);
    check_tags(&new.tags, &mut faults);
    if !faults.is_empty() {
        return Err(Error::violations(
            "VERSION_INVALID",
            "Invalid input error",
            faults,
        ));
    }
    let (spec, plan) = plans::check(file)?;
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    let pipeline = pipelines::find(&mut tx, caller, pipeline).await?;
    let version = add(ctx, &mut tx, &pipeline, new, &spec, Change::of(caller, now)).await?;
    tx.commit().await?;
    ctx.plans.insert(&spec.digest, plan);
    Ok(FullVersion {
        version,
        spec: document(&spec)?,
    })
}

/// Adds a version in the caller's transaction.
pub(crate) async fn add(
    ctx: &Ctx,
    tx: &mut WriteTx,
    pipeline: &Pipeline,
    new: NewVersion,
    spec: &SpecText,
    change: Change<'_>,
) -> Result<Version, Error> {
    let mut version = Version {
        id: PipelineVersionId::new(ctx.ids.uuid()),
        pipeline: pipeline.id,
        name: new.name,
        display_name: new.display_name,
        description: new.description,
        code_source_url: new.code_source_url,
        package_url: new.package_url,
        tags: new.tags,
        spec_digest: spec.digest.clone(),
        created_at: change.at,
        event_sequence: 0,
        created_by: change.author(),
    };
    store::specs::put(tx, spec).await?;
    store::versions::put(tx, &version).await.map_err(|error| {
        name_taken(error, format!(
            "Failed to create a new pipeline version. The name {} already exists in this pipeline. \
             Please specify a new name",
            version.name
        ))
    })?;
    publish_event(tx, pipeline, &mut version, "created", change).await?;
    Ok(version)
}

async fn publish_event(
    tx: &mut WriteTx,
    pipeline: &Pipeline,
    version: &mut Version,
    verb: &str,
    change: Change<'_>,
) -> Result<(), Error> {
    version.event_sequence += 1;
    let subject = Subject {
        namespace: &pipeline.namespace,
        path: format!("pipelines/{}/versions/{}", pipeline.id, version.id),
        key: version.id.to_string(),
        sequence: version.event_sequence,
    };
    let data = json!({
        "pipeline_id": pipeline.id.to_string(),
        "pipeline_version_id": version.id.to_string(),
        "name": version.name,
        "display_name": version.display_name,
    });
    let event = events::event(subject, change, ("pipeline-version", verb), data);
    tx.publish(&event).await?;
    // Stores the number of the event. `put` is an upsert: it would bring a deleted row back.
    if verb != "deleted" {
        store::versions::put(tx, version).await?;
    }
    Ok(())
}

/// A specification as clients see it.
pub(crate) fn document(spec: &SpecText) -> Result<Value, Error> {
    let pipeline = plans::parse_json(&spec.pipeline)?;
    Ok(match &spec.platform {
        None => pipeline,
        Some(platform) => {
            json!({"pipeline_spec": pipeline, "platform_spec": plans::parse_json(platform)?})
        }
    })
}

pub(crate) fn not_found(id: PipelineVersionId) -> Error {
    Error::not_found(
        "VERSION_NOT_FOUND",
        format!("PipelineVersion {id} not found"),
    )
}

/// The version of this id, if it is in the scope.
pub(super) async fn find(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: PipelineVersionId,
) -> Result<Version, Error> {
    let found = store::versions::get(tx, scope, id).await?;
    found.ok_or_else(|| not_found(id))
}

/// The version of this id with its specification.
pub(crate) async fn get_version(
    ctx: &Ctx,
    caller: &Caller,
    id: PipelineVersionId,
) -> Result<FullVersion, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let version = find(&mut tx, caller, id).await?;
    let spec = store::specs::get(&mut tx, &version.spec_digest).await?;
    Ok(FullVersion {
        spec: document(&spec)?,
        version,
    })
}

/// A page of a pipeline's versions.
pub(crate) async fn list_versions(
    ctx: &Ctx,
    caller: &Caller,
    pipeline: PipelineId,
    request: &ListRequest,
) -> Result<Page<FullVersion>, Error> {
    let listing = listing(request)?;
    let mut tx = ctx.db.begin_read().await?;
    let pipeline = pipelines::find(&mut tx, caller, pipeline).await?;
    let within = ScopeFilter::parent("pipeline_id", pipeline.id);
    let table = &store::versions::TABLE;
    let page = ferroflow_db::list::list(&mut tx, table, &within, &listing, store::versions::decode)
        .await?;
    let mut entries = Vec::with_capacity(page.entries.len());
    for version in page.entries {
        let spec = store::specs::get(&mut tx, &version.spec_digest).await?;
        entries.push(FullVersion {
            spec: document(&spec)?,
            version,
        });
    }
    Ok(Page {
        entries,
        total: page.total,
        next: page.next,
    })
}

/// Changes what may change: an empty name stays, `None` keeps the tags.
pub(crate) async fn update_version(
    ctx: &Ctx,
    caller: &Caller,
    id: PipelineVersionId,
    display_name: String,
    tags: Option<Tags>,
) -> Result<FullVersion, Error> {
    let mut faults = Vec::new();
    check_display_name(&display_name, &mut faults);
    check_tags(tags.as_ref().unwrap_or(&Tags::new()), &mut faults);
    if !faults.is_empty() {
        return Err(Error::violations(
            "VERSION_INVALID",
            "Invalid input error",
            faults,
        ));
    }
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    let (pipeline, mut version) = find_with_pipeline(&mut tx, caller, id).await?;
    if !display_name.is_empty() {
        version.display_name = display_name;
    }
    if let Some(tags) = tags {
        version.tags = tags;
    }
    publish_event(
        &mut tx,
        &pipeline,
        &mut version,
        "updated",
        Change::of(caller, now),
    )
    .await?;
    tx.commit().await?;
    // Read back, because the answer shows the specification as well.
    get_version(ctx, caller, id).await
}

/// Removes a version; runs made from it are untouched.
pub(crate) async fn delete_version(
    ctx: &Ctx,
    caller: &Caller,
    id: PipelineVersionId,
) -> Result<(), Error> {
    let now = ctx.now();
    let mut tx = ctx.db.begin_write().await?;
    let (pipeline, mut version) = find_with_pipeline(&mut tx, caller, id).await?;
    store::versions::delete(&mut tx, id).await?;
    publish_event(
        &mut tx,
        &pipeline,
        &mut version,
        "deleted",
        Change::of(caller, now),
    )
    .await?;
    Ok(tx.commit().await?)
}

async fn find_with_pipeline(
    tx: &mut WriteTx,
    caller: &Caller,
    id: PipelineVersionId,
) -> Result<(Pipeline, Version), Error> {
    tx.lock_row("pipeline_versions", id).await?;
    let version = find(tx, caller, id).await?;
    let pipeline = pipelines::find(tx, caller, version.pipeline).await?;
    Ok((pipeline, version))
}
