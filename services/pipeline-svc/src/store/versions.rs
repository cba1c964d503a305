//! The table `pipeline_versions`.

use ferroflow_db::list::{ColumnType, Table};
use ferroflow_db::row::{Cells, decode_visible, json_text};
use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_types::Scope;
use sqlx::any::AnyRow;

use crate::domain::definition::{Pipeline, Version};
use crate::domain::id::PipelineVersionId;
use crate::store::pipelines::put_tags;

/// Versions as they can be listed.
pub(crate) const TABLE: Table = Table {
    name: "pipeline_versions",
    columns: "id, pipeline_id, name, display_name, description, code_source_url, package_url, \
              tags, status, spec_digest, created_at, event_sequence, created_by",
    keys: &[
        ("id", "id", ColumnType::Text),
        ("pipeline_version_id", "id", ColumnType::Text),
        ("name", "name", ColumnType::Text),
        ("display_name", "display_name", ColumnType::Text),
        ("created_at", "created_at", ColumnType::Time),
        ("status", "status", ColumnType::Text),
        ("description", "description", ColumnType::Text),
    ],
    tagged: true,
    text_index: None,
};

// A version has no namespace of its own: what a scope is compared with is that of its pipeline.
const GET: &str = "SELECT id, pipeline_id, name, display_name, description, code_source_url, \
    package_url, tags, status, spec_digest, created_at, event_sequence, created_by, \
    (SELECT namespace FROM pipelines WHERE pipelines.id = pipeline_id) AS namespace \
    FROM pipeline_versions WHERE id = $1";

// The newest, as upstream. Of two with the same time, of which upstream takes either, the one with
// the larger id.
const LATEST: &str = "SELECT id, pipeline_id, name, display_name, description, code_source_url, \
    package_url, tags, status, spec_digest, created_at, event_sequence, created_by FROM pipeline_versions \
    WHERE pipeline_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1";

const UPSERT: &str = "INSERT INTO pipeline_versions (id, pipeline_id, name, display_name, \
    description, code_source_url, package_url, tags, status, spec_digest, created_at, \
    event_sequence, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'READY', $9, $10, $11, $12) ON CONFLICT (id) DO UPDATE SET \
    display_name = excluded.display_name, tags = excluded.tags, \
    event_sequence = excluded.event_sequence";

/// Adds a version, or stores what may change of one.
pub(crate) async fn put(tx: &mut WriteTx, version: &Version) -> Result<(), DbError> {
    let id = version.id.to_string();
    sqlx::query(UPSERT)
        .bind(&id)
        .bind(version.pipeline.to_string())
        .bind(&version.name)
        .bind(&version.display_name)
        .bind(&version.description)
        .bind(&version.code_source_url)
        .bind(&version.package_url)
        .bind(json_text(&version.tags))
        .bind(&version.spec_digest)
        .bind(version.created_at.millis())
        .bind(version.event_sequence)
        .bind(&version.created_by)
        .execute(tx.conn())
        .await?;
    put_tags(tx, &id, &version.tags).await
}

/// The version of this id.
pub(crate) async fn get(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: PipelineVersionId,
) -> Result<Option<Version>, DbError> {
    let row = sqlx::query(GET)
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await?;
    decode_visible(scope, row.as_ref(), decode)
}

/// The newest version of a pipeline.
pub(crate) async fn latest(
    tx: &mut impl Read,
    pipeline: &Pipeline,
) -> Result<Option<Version>, DbError> {
    let row = sqlx::query(LATEST)
        .bind(pipeline.id.to_string())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Removes a version and its tags; runs keep its specification.
pub(crate) async fn delete(tx: &mut WriteTx, id: PipelineVersionId) -> Result<bool, DbError> {
    let id = id.to_string();
    sqlx::query("DELETE FROM tags WHERE owner_id = $1")
        .bind(&id)
        .execute(tx.conn())
        .await?;
    let query = sqlx::query("DELETE FROM pipeline_versions WHERE id = $1").bind(&id);
    Ok(query.execute(tx.conn()).await?.rows_affected() == 1)
}

/// A version out of a row.
pub(crate) fn decode(row: &AnyRow) -> Result<Version, DbError> {
    let cells = Cells::of("pipeline_versions", row);
    Ok(Version {
        id: cells.parsed("id")?,
        pipeline: cells.parsed("pipeline_id")?,
        name: cells.text("name")?,
        display_name: cells.text("display_name")?,
        description: cells.text("description")?,
        code_source_url: cells.text("code_source_url")?,
        package_url: cells.text("package_url")?,
        tags: cells.json("tags")?,
        spec_digest: cells.text("spec_digest")?,
        created_at: cells.time("created_at")?,
        event_sequence: cells.int("event_sequence")?,
        created_by: cells.text("created_by")?,
    })
}
