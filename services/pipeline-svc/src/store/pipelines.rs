//! The tables `pipelines` and `tags`.

use ferroflow_db::list::{ColumnType, Table};
use ferroflow_db::row::{Cells, decode_visible, json_text};
use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_types::{Namespace, Scope};
use sqlx::any::AnyRow;

use crate::domain::definition::{Pipeline, Tags};
use crate::domain::id::PipelineId;

/// Pipelines as they can be listed.
pub(crate) const TABLE: Table = Table {
    name: "pipelines",
    columns: "id, namespace, name, display_name, description, tags, created_at, event_sequence, created_by",
    keys: &[
        ("id", "id", ColumnType::Text),
        ("pipeline_id", "id", ColumnType::Text),
        ("name", "name", ColumnType::Text),
        ("display_name", "display_name", ColumnType::Text),
        ("created_at", "created_at", ColumnType::Time),
        ("description", "description", ColumnType::Text),
        ("namespace", "namespace", ColumnType::Text),
    ],
    tagged: true,
    text_index: None,
};

const GET: &str = "SELECT id, namespace, name, display_name, description, tags, created_at, \
    event_sequence, created_by FROM pipelines WHERE id = $1";

const BY_NAME: &str = "SELECT id, namespace, name, display_name, description, tags, created_at, \
    event_sequence, created_by FROM pipelines WHERE namespace = $1 AND name = $2";

const UPSERT: &str = "INSERT INTO pipelines (id, namespace, name, display_name, description, \
    tags, created_at, event_sequence, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
    ON CONFLICT (id) DO UPDATE SET display_name = excluded.display_name, tags = excluded.tags, \
    event_sequence = excluded.event_sequence";

/// Adds a pipeline, or stores what may change of one.
pub(crate) async fn put(tx: &mut WriteTx, pipeline: &Pipeline) -> Result<(), DbError> {
    let id = pipeline.id.to_string();
    sqlx::query(UPSERT)
        .bind(&id)
        .bind(pipeline.namespace.as_str())
        .bind(&pipeline.name)
        .bind(&pipeline.display_name)
        .bind(&pipeline.description)
        .bind(json_text(&pipeline.tags))
        .bind(pipeline.created_at.millis())
        .bind(pipeline.event_sequence)
        .bind(&pipeline.created_by)
        .execute(tx.conn())
        .await?;
    put_tags(tx, &id, &pipeline.tags).await
}

/// Replaces the tags of a pipeline or version in the table that filters look at.
pub(crate) async fn put_tags(tx: &mut WriteTx, owner: &str, tags: &Tags) -> Result<(), DbError> {
    sqlx::query("DELETE FROM tags WHERE owner_id = $1")
        .bind(owner)
        .execute(tx.conn())
        .await?;
    for (key, value) in tags {
        sqlx::query("INSERT INTO tags (owner_id, key, value) VALUES ($1, $2, $3)")
            .bind(owner)
            .bind(key)
            .bind(value)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// The pipeline of this id.
pub(crate) async fn get(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: PipelineId,
) -> Result<Option<Pipeline>, DbError> {
    let row = sqlx::query(GET)
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await?;
    decode_visible(scope, row.as_ref(), decode)
}

/// The pipeline of this name.
pub(crate) async fn by_name(
    tx: &mut impl Read,
    namespace: &Namespace,
    name: &str,
) -> Result<Option<Pipeline>, DbError> {
    let query = sqlx::query(BY_NAME).bind(namespace.as_str()).bind(name);
    query
        .fetch_optional(tx.conn())
        .await?
        .as_ref()
        .map(decode)
        .transpose()
}

/// Removes a pipeline with its versions and tags.
pub(crate) async fn delete(tx: &mut WriteTx, id: PipelineId) -> Result<bool, DbError> {
    let text = id.to_string();
    // The owners of tags are in two tables, so there is no foreign key that would remove them. Tags
    // of versions come first, since they are found through the versions.
    for statement in [
        "DELETE FROM tags WHERE owner_id IN (SELECT id FROM pipeline_versions WHERE pipeline_id = $1)",
        "DELETE FROM tags WHERE owner_id = $1",
        "DELETE FROM pipeline_versions WHERE pipeline_id = $1",
    ] {
        sqlx::query(statement)
            .bind(&text)
            .execute(tx.conn())
            .await?;
    }
    let query = sqlx::query("DELETE FROM pipelines WHERE id = $1").bind(&text);
    Ok(query.execute(tx.conn()).await?.rows_affected() == 1)
}

/// A pipeline out of a row.
pub(crate) fn decode(row: &AnyRow) -> Result<Pipeline, DbError> {
    let cells = Cells::of("pipelines", row);
    Ok(Pipeline {
        id: cells.parsed("id")?,
        namespace: cells.parsed("namespace")?,
        name: cells.text("name")?,
        display_name: cells.text("display_name")?,
        description: cells.text("description")?,
        tags: cells.json("tags")?,
        created_at: cells.time("created_at")?,
        event_sequence: cells.int("event_sequence")?,
        created_by: cells.text("created_by")?,
    })
}
