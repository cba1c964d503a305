//! The tables `tasks` and `cached_results`.

use ferroflow_db::row::{Cells, decode_visible, json_text};
use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_pipeline_engine::engine::task::{CacheSource, TaskState, Values};
use ferroflow_pipeline_engine::engine::{CachedResult, TaskRow};
use ferroflow_types::{Namespace, RunId, Scope, TaskId, Timestamp};
use sqlx::any::AnyRow;

use crate::domain::run::Run;

const UPSERT: &str = "INSERT INTO tasks (id, run_id, path, parent_id, iteration, state, attempt, \
    failures, lost, inputs, outputs, error, cache, created_at, started_at, finished_at, retry_at, \
    history, note, remarks) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
    $17, $18, $19, $20) ON CONFLICT (id) DO UPDATE SET state = excluded.state, attempt = excluded.attempt, \
    failures = excluded.failures, lost = excluded.lost, inputs = excluded.inputs, \
    outputs = excluded.outputs, error = excluded.error, cache = excluded.cache, \
    started_at = excluded.started_at, finished_at = excluded.finished_at, \
    retry_at = excluded.retry_at, history = excluded.history, note = excluded.note, \
    remarks = excluded.remarks";

const OF_RUN: &str = "SELECT id, path, parent_id, iteration, state, attempt, failures, lost, \
    inputs, outputs, error, cache, created_at, started_at, finished_at, retry_at, history, \
    note, remarks \
    FROM tasks WHERE run_id = $1 ORDER BY path";

const NAMESPACE_OF: &str =
    "SELECT namespace FROM runs WHERE id = (SELECT run_id FROM tasks WHERE id = $1)";

const GET: &str = "SELECT id, path, parent_id, iteration, state, attempt, failures, lost, \
    inputs, outputs, error, cache, created_at, started_at, finished_at, retry_at, history, \
    note, remarks \
    FROM tasks WHERE run_id = $1 AND id = $2";

const PUT_CACHED_RESULT: &str = "INSERT INTO cached_results (namespace, pipeline_name, \
    fingerprint, run_id, task_id, outputs, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
    ON CONFLICT (namespace, pipeline_name, fingerprint) DO UPDATE SET run_id = excluded.run_id, \
    task_id = excluded.task_id, outputs = excluded.outputs, created_at = excluded.created_at";

const GET_CACHED_RESULT: &str = "SELECT run_id, task_id, outputs FROM cached_results \
    WHERE namespace = $1 AND pipeline_name = $2 AND fingerprint = $3";

/// Stores a task as it is now.
pub(crate) async fn upsert(tx: &mut WriteTx, run: RunId, task: &TaskRow) -> Result<(), DbError> {
    sqlx::query(UPSERT)
        .bind(task.id.to_string())
        .bind(run.to_string())
        .bind(&task.path)
        .bind(task.parent.map(|parent| parent.to_string()))
        .bind(task.iteration.map(i64::from))
        .bind(task.state.as_str())
        .bind(i64::from(task.attempt))
        .bind(i64::from(task.failures))
        .bind(i64::from(task.lost))
        .bind(json_text(&task.inputs))
        .bind(json_text(&task.outputs))
        .bind(task.error.as_ref().map(json_text))
        .bind(task.cache.as_ref().map(json_text))
        .bind(task.created_at.millis())
        .bind(task.started_at.map(Timestamp::millis))
        .bind(task.finished_at.map(Timestamp::millis))
        .bind(task.retry_at.map(Timestamp::millis))
        .bind(json_text(&task.history))
        .bind(&task.note)
        .bind(json_text(&task.remarks))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Every task of a run, parents before children.
pub(crate) async fn of_run(tx: &mut impl Read, run: &Run) -> Result<Vec<TaskRow>, DbError> {
    let rows = sqlx::query(OF_RUN)
        .bind(run.id.to_string())
        .fetch_all(tx.conn())
        .await?;
    rows.iter().map(decode).collect()
}

/// Whether there is a task of this id in the scope.
pub(crate) async fn exists(
    tx: &mut impl Read,
    scope: &impl Scope,
    task: TaskId,
) -> Result<bool, DbError> {
    let query = sqlx::query(NAMESPACE_OF).bind(task.to_string());
    let row = query.fetch_optional(tx.conn()).await?;
    Ok(decode_visible(scope, row.as_ref(), |_| Ok(()))?.is_some())
}

/// One task of a run.
pub(crate) async fn get(
    tx: &mut impl Read,
    run: &Run,
    task: TaskId,
) -> Result<Option<TaskRow>, DbError> {
    let query = sqlx::query(GET)
        .bind(run.id.to_string())
        .bind(task.to_string());
    query
        .fetch_optional(tx.conn())
        .await?
        .as_ref()
        .map(decode)
        .transpose()
}

/// Keeps a result for tasks with the same fingerprint.
pub(crate) async fn put_cached_result(
    tx: &mut WriteTx,
    run: &Run,
    task: &TaskRow,
    fingerprint: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    sqlx::query(PUT_CACHED_RESULT)
        .bind(run.namespace.as_str())
        .bind(&run.pipeline_name)
        .bind(fingerprint)
        .bind(run.id.to_string())
        .bind(task.id.to_string())
        .bind(json_text(&task.outputs))
        .bind(now.millis())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The newest result with this fingerprint in a namespace and pipeline.
pub(crate) async fn get_cached_result(
    tx: &mut impl Read,
    namespace: &Namespace,
    pipeline_name: &str,
    fingerprint: &str,
) -> Result<Option<CachedResult>, DbError> {
    let query = sqlx::query(GET_CACHED_RESULT)
        .bind(namespace.as_str())
        .bind(pipeline_name)
        .bind(fingerprint);
    let Some(row) = query.fetch_optional(tx.conn()).await? else {
        return Ok(None);
    };
    let cells = Cells::of("cached_results", &row);
    let source = CacheSource {
        run: cells.text("run_id")?,
        task: cells.parsed("task_id")?,
    };
    Ok(Some(CachedResult {
        source,
        outputs: cells.json::<Values>("outputs")?,
    }))
}

fn decode(row: &AnyRow) -> Result<TaskRow, DbError> {
    let cells = Cells::of("tasks", row);
    Ok(TaskRow {
        id: cells.parsed("id")?,
        path: cells.text("path")?,
        parent: cells.parsed_opt("parent_id")?,
        iteration: cells
            .int_opt("iteration")?
            .and_then(|number| u32::try_from(number).ok()),
        state: cells.enum_value("state", TaskState::parse)?,
        attempt: cells.count("attempt")?,
        failures: cells.count("failures")?,
        lost: cells.count("lost")?,
        inputs: cells.json("inputs")?,
        outputs: cells.json("outputs")?,
        error: cells.json_opt("error")?,
        cache: cells.json_opt("cache")?,
        created_at: cells.time("created_at")?,
        started_at: cells.time_opt("started_at")?,
        finished_at: cells.time_opt("finished_at")?,
        retry_at: cells.time_opt("retry_at")?,
        history: cells.json("history")?,
        note: cells.text("note")?,
        remarks: cells.json("remarks")?,
    })
}
