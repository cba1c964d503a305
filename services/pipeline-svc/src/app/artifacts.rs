//! Artifacts: what tasks made, and its content.

use ferroflow_artifacts::read::{self, ReadError, Reading};
use ferroflow_db::page;
use ferroflow_types::{Error, ErrorKind, RunId, TaskId};

use super::Ctx;
use crate::store;
use crate::store::artifacts::StoredArtifact;

/// The largest page.
const PAGE_MAX: i64 = 200;

/// A page of artifacts, and the token of the next.
pub(crate) async fn list_artifacts(
    ctx: &Ctx,
    run: Option<RunId>,
    task: Option<TaskId>,
    page_token: &str,
    page_size: i32,
) -> Result<(Vec<StoredArtifact>, String), Error> {
    let after: i64 = if page_token.is_empty() {
        0
    } else {
        page::decode(page_token)?
    };
    let size = match i64::from(page_size) {
        ..=0 => PAGE_MAX,
        size => size.min(PAGE_MAX),
    };
    let mut tx = ctx.db.begin_read().await?;
    let mut found = store::artifacts::list(&mut tx, run, task, after, size + 1).await?;
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
pub(crate) async fn get_artifact(ctx: &Ctx, id: i64) -> Result<StoredArtifact, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = store::artifacts::get(&mut tx, id).await?;
    found.ok_or_else(|| Error::not_found("ARTIFACT_NOT_FOUND", format!("artifact {id} not found")))
}

/// The content of an artifact, or of the file `inner` in the folder that it is.
pub(crate) async fn read_artifact(ctx: &Ctx, id: i64, inner: &str) -> Result<Reading, Error> {
    let found = get_artifact(ctx, id).await?;
    read::open(&ctx.stores, &found.artifact.uri, inner)
        .await
        .map_err(|error| {
            let (kind, reason) = match &error {
                ReadError::Store(_) => (ErrorKind::Unimplemented, "STORE_UNSUPPORTED"),
                ReadError::Missing(_) => (ErrorKind::NotFound, "CONTENT_NOT_FOUND"),
                ReadError::Folder { .. } | ReadError::Outside(_) => {
                    (ErrorKind::Invalid, "PATH_INVALID")
                }
                ReadError::Failed { .. } => (ErrorKind::Internal, "INTERNAL"),
            };
            Error::new(kind, reason, error.to_string()).caused_by(error)
        })
}

/// The id of a task's output artifact by name.
pub(crate) async fn find_output(
    ctx: &Ctx,
    run: RunId,
    task: TaskId,
    name: &str,
) -> Result<i64, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let found = store::tasks::get(&mut tx, run, task).await?;
    let artifact = found
        .as_ref()
        .and_then(|task| task.outputs.artifacts.get(name)?.first());
    artifact.map(|artifact| artifact.id).ok_or_else(|| {
        let message = format!("task {task} has no output artifact {name:?}");
        Error::not_found("ARTIFACT_NOT_FOUND", message)
    })
}
