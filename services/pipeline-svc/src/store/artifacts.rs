//! The tables `artifacts` and `number_blocks`.

use std::sync::Arc;

use ferroflow_db::row::{Cells, decode_all_visible, decode_visible, json_text};
use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_pipeline_engine::artifact::Artifact;
use ferroflow_types::Scope;
use serde_json::{Map, Value};
use sqlx::any::AnyRow;

use crate::domain::artifact::{ArtifactFilter, StoredArtifact};
use crate::domain::run::Run;

const INSERT: &str = "INSERT INTO artifacts (id, namespace, pipeline_name, run_id, task_id, name, \
    schema_title, schema_version, uri, metadata, digest, size_bytes, created_at, stamp) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

const GET: &str = "SELECT id, run_id, task_id, name, schema_title, schema_version, uri, metadata, \
    digest, size_bytes, created_at, stamp, namespace FROM artifacts WHERE id = $1";

const LIST_OF_RUN: &str = "SELECT id, run_id, task_id, name, schema_title, schema_version, uri, \
    metadata, digest, size_bytes, created_at, stamp, namespace FROM artifacts \
    WHERE run_id = $1 AND id > $2 \
    ORDER BY id LIMIT $3";

const LIST_OF_TASK: &str = "SELECT id, run_id, task_id, name, schema_title, schema_version, uri, \
    metadata, digest, size_bytes, created_at, stamp, namespace FROM artifacts \
    WHERE task_id = $1 AND id > $2 \
    ORDER BY id LIMIT $3";

const LIST_OF_NAMESPACE: &str = "SELECT id, run_id, task_id, name, schema_title, schema_version, \
    uri, metadata, digest, size_bytes, created_at, stamp, namespace FROM artifacts \
    WHERE namespace = $1 AND id > $2 ORDER BY id LIMIT $3";

const FIND_IMPORTED: &str = "SELECT id, run_id, task_id, name, schema_title, schema_version, uri, \
    metadata, digest, size_bytes, created_at, stamp FROM artifacts WHERE namespace = $1 \
    AND pipeline_name = $2 AND uri = $3 AND schema_title = $4 AND metadata = $5 \
    ORDER BY id DESC LIMIT 1";

// `next` is the last number that was handed out.
const ALLOCATE_IDS: &str = "INSERT INTO number_blocks (name, next) VALUES ('artifacts', $1) \
    ON CONFLICT (name) DO UPDATE SET next = number_blocks.next + $1 RETURNING next";

/// Adds an artifact that a task made.
pub(crate) async fn insert(
    tx: &mut WriteTx,
    run: &Run,
    stored: &StoredArtifact,
) -> Result<(), DbError> {
    let artifact = &stored.artifact;
    sqlx::query(INSERT)
        .bind(artifact.id)
        .bind(run.namespace.as_str())
        .bind(&run.pipeline_name)
        .bind(stored.run.to_string())
        .bind(stored.task.to_string())
        .bind(&artifact.name)
        .bind(&artifact.schema_title)
        .bind(&artifact.schema_version)
        .bind(&artifact.uri)
        .bind(json_text(&artifact.metadata))
        .bind(artifact.digest.as_deref())
        .bind(
            artifact
                .size_bytes
                .and_then(|size| i64::try_from(size).ok()),
        )
        .bind(stored.created_at.millis())
        .bind(artifact.stamp.as_deref())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The artifact of this id in the scope.
pub(crate) async fn get(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: i64,
) -> Result<Option<StoredArtifact>, DbError> {
    let row = sqlx::query(GET).bind(id).fetch_optional(tx.conn()).await?;
    decode_visible(scope, row.as_ref(), decode)
}

/// Artifacts in the scope with ids above `after`.
pub(crate) async fn list(
    tx: &mut impl Read,
    scope: &impl Scope,
    filter: &ArtifactFilter,
    after: i64,
    limit: i64,
) -> Result<Vec<StoredArtifact>, DbError> {
    let query = match filter {
        ArtifactFilter::Namespace(namespace) => {
            sqlx::query(LIST_OF_NAMESPACE).bind(namespace.to_string())
        }
        ArtifactFilter::Run(run) => sqlx::query(LIST_OF_RUN).bind(run.to_string()),
        ArtifactFilter::Task(task) => sqlx::query(LIST_OF_TASK).bind(task.to_string()),
    };
    let rows = query.bind(after).bind(limit).fetch_all(tx.conn()).await?;
    decode_all_visible(scope, &rows, decode)
}

/// An artifact that the run's pipeline imported before, with the same type and metadata.
pub(crate) async fn find_imported(
    tx: &mut impl Read,
    run: &Run,
    uri: &str,
    schema_title: &str,
    metadata: &Map<String, Value>,
) -> Result<Option<StoredArtifact>, DbError> {
    let query = sqlx::query(FIND_IMPORTED)
        .bind(run.namespace.as_str())
        .bind(&run.pipeline_name)
        .bind(uri)
        .bind(schema_title)
        .bind(json_text(metadata));
    query
        .fetch_optional(tx.conn())
        .await?
        .as_ref()
        .map(decode)
        .transpose()
}

/// Sets `count` ids aside for the caller and gives the first of them.
pub(crate) async fn allocate_ids(tx: &mut WriteTx, count: i64) -> Result<i64, DbError> {
    let row = sqlx::query(ALLOCATE_IDS)
        .bind(count)
        .fetch_one(tx.conn())
        .await?;
    Ok(Cells::of("number_blocks", &row).int("next")? - count + 1)
}

fn decode(row: &AnyRow) -> Result<StoredArtifact, DbError> {
    let cells = Cells::of("artifacts", row);
    let artifact = Artifact {
        id: cells.int("id")?,
        name: cells.text("name")?,
        schema_title: cells.text("schema_title")?,
        schema_version: cells.text("schema_version")?,
        uri: cells.text("uri")?,
        metadata: cells.json("metadata")?,
        digest: cells.text_opt("digest")?,
        stamp: cells.text_opt("stamp")?,
        size_bytes: cells
            .int_opt("size_bytes")?
            .and_then(|size| u64::try_from(size).ok()),
        custom_path: None,
    };
    Ok(StoredArtifact {
        artifact: Arc::new(artifact),
        run: cells.parsed("run_id")?,
        task: cells.parsed("task_id")?,
        created_at: cells.time("created_at")?,
    })
}
