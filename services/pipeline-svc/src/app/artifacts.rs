//! Artifacts: what tasks made, and its content.

use std::sync::Arc;

use ferroflow_artifacts::contents::{RecordedContent, State};
use ferroflow_artifacts::read::{self, ContentStream, FileEntry, ReadError};
use ferroflow_db::page;
use ferroflow_pipeline_engine::artifact::Artifact;
use ferroflow_service::listing;
use ferroflow_types::{Caller, Error, ErrorKind, RunId, TaskId};
use futures::StreamExt as _;

use super::{Ctx, runs, tasks};
use crate::domain::artifact::{ArtifactFilter, StoredArtifact};
use crate::store;

/// The largest page.
const PAGE_MAX: i64 = 200;

/// A page of artifacts, and the token of the next.
pub(crate) async fn list_artifacts(
    ctx: &Ctx,
    caller: &Caller,
    filter: &ArtifactFilter,
    page_token: &str,
    page_size: i32,
) -> Result<(Vec<StoredArtifact>, String), Error> {
    // Ids begin with 1 (`store::artifacts::allocate_ids`), so all of them come after 0.
    let after: i64 = if page_token.is_empty() {
        0
    } else {
        page::decode(page_token)?
    };
    let size = listing::page_size(page_size, PAGE_MAX, PAGE_MAX)?;
    let mut tx = ctx.db.begin_read().await?;
    // One more than the page shows, which tells whether there is a next page.
    let mut found = store::artifacts::list(&mut tx, caller, filter, after, size + 1).await?;
    if found.is_empty() {
        // Artifacts outlive their run, so a run is looked for only where there are none: an id that
        // nobody knows is an error and not an empty page.
        match filter {
            ArtifactFilter::Run(run) => drop(runs::find(&mut tx, caller, *run).await?),
            ArtifactFilter::Task(task) => tasks::check_exists(&mut tx, caller, *task).await?,
            ArtifactFilter::Namespace(_) => {}
        }
    }
    let kept = usize::try_from(size).unwrap_or(usize::MAX);
    let more = found.len() > kept;
    found.truncate(kept);
    let next = match found.last() {
        Some(last) if more => page::encode(&last.artifact.id)?,
        _ => String::new(),
    };
    Ok((found, next))
}

/// The artifact of this id.
pub(crate) async fn get_artifact(
    ctx: &Ctx,
    caller: &Caller,
    id: i64,
) -> Result<StoredArtifact, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = store::artifacts::get(&mut tx, caller, id).await?;
    found.ok_or_else(|| Error::not_found("ARTIFACT_NOT_FOUND", format!("artifact {id} not found")))
}

/// An artifact's content that is being read.
pub(crate) struct Content {
    /// The artifact.
    pub artifact: Arc<Artifact>,
    /// Its content, or that of a file in it.
    pub reading: ContentStream,
}

/// The content of an artifact, or of the file `inner` in the folder that it is. Metrics that have no
/// file are their values.
pub(crate) async fn read_artifact(
    ctx: &Ctx,
    caller: &Caller,
    id: i64,
    inner: &str,
) -> Result<Content, Error> {
    let artifact = get_artifact(ctx, caller, id).await?.artifact;
    check_unchanged(ctx, &artifact).await?;
    let opened = read::open(&ctx.stores, &artifact.uri, inner).await;
    let reading = match opened {
        Err(ReadError::Missing(_) | ReadError::Store(_))
            if inner.is_empty() && artifact.is_metrics() =>
        {
            metrics_content(&artifact)?
        }
        opened => opened.map_err(read_error)?,
    };
    Ok(Content { artifact, reading })
}

/// The values of metrics, as the content of a file.
fn metrics_content(artifact: &Artifact) -> Result<ContentStream, Error> {
    let text = serde_json::to_vec_pretty(&artifact.metadata)
        .map_err(|error| Error::internal("the metrics have no JSON", error))?;
    Ok(ContentStream {
        size_bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
        name: format!("{}.json", artifact.name),
        bytes: futures::stream::iter([Ok(text.into())]).boxed(),
    })
}

fn read_error(error: ReadError) -> Error {
    let (kind, reason) = match &error {
        ReadError::Store(_) => (ErrorKind::Unimplemented, "STORE_UNSUPPORTED"),
        ReadError::Missing(_) => (ErrorKind::NotFound, "CONTENT_NOT_FOUND"),
        ReadError::Folder { .. } | ReadError::Outside(_) => (ErrorKind::Invalid, "PATH_INVALID"),
        ReadError::Failed { .. } => (ErrorKind::Internal, "INTERNAL"),
    };
    Error::new(kind, reason, error.to_string()).caused_by(error)
}

/// The largest page of files.
const FILES_PAGE_MAX: i64 = 1000;

/// A page of the files of an artifact that is a folder, and the token of the next.
pub(crate) async fn list_files(
    ctx: &Ctx,
    caller: &Caller,
    id: i64,
    page_token: &str,
    page_size: i32,
) -> Result<(Vec<FileEntry>, String), Error> {
    let after: String = if page_token.is_empty() {
        String::new()
    } else {
        page::decode(page_token)?
    };
    let size = listing::page_size(page_size, FILES_PAGE_MAX, FILES_PAGE_MAX)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let artifact = get_artifact(ctx, caller, id).await?.artifact;
    let mut files = match read::files(&ctx.stores, &artifact.uri, &after).await {
        // Metrics may be values without a file, and their URI then leads to no store.
        Err(ReadError::Store(_)) if artifact.is_metrics() => Vec::new(),
        listed => listed.map_err(read_error)?,
    };
    let more = files.len() > size;
    files.truncate(size);
    let next = match files.last() {
        Some(last) if more => page::encode(&last.path)?,
        _ => String::new(),
    };
    Ok((files, next))
}

/// What was noted of an artifact's content.
pub(crate) fn recorded_content(artifact: &Artifact) -> RecordedContent<'_> {
    RecordedContent {
        uri: &artifact.uri,
        digest: artifact.digest.as_deref(),
        stamp: artifact.stamp.as_deref(),
    }
}

/// Refuses content of our own places that is not what a task left there. What cannot be looked at fails
/// when it is read, with its reason.
async fn check_unchanged(ctx: &Ctx, artifact: &Artifact) -> Result<(), Error> {
    let uri = &artifact.uri;
    let record = recorded_content(artifact);
    // Content without a stamp may change: a component chose its place, or a release that kept no
    // stamps stored it.
    if record.stamp.is_none() || !matches!(ctx.contents.state(record).await, Ok(State::Changed)) {
        return Ok(());
    }
    let message = format!(
        "the content of artifact {}, {uri}, is not what its task left there: run the pipeline again, \
         and that task runs anew",
        artifact.id
    );
    Err(Error::new(
        ErrorKind::Precondition,
        "CONTENT_CHANGED",
        message,
    ))
}

/// The id of a task's output artifact by name.
pub(crate) async fn find_output(
    ctx: &Ctx,
    caller: &Caller,
    run: RunId,
    task: TaskId,
    name: &str,
) -> Result<i64, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = match store::runs::get(&mut tx, caller, run).await? {
        Some(run) => store::tasks::get(&mut tx, &run, task).await?,
        None => None,
    };
    let artifact = found
        .as_ref()
        .and_then(|task| task.outputs.artifacts.get(name)?.first());
    artifact.map(|artifact| artifact.id).ok_or_else(|| {
        let message = format!("task {task} has no output artifact {name:?}");
        Error::not_found("ARTIFACT_NOT_FOUND", message)
    })
}
