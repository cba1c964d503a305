//! The table `recurring_runs`.

use ferroflow_db::list::{ColumnType, Table};
use ferroflow_db::row::{Cells, decode_all_visible, decode_visible, json_text};
use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_schedule::{Limits, Progress, Trigger, When};
use ferroflow_types::{Scope, Timestamp};
use serde_json::{Map, Value};
use sqlx::any::AnyRow;

use crate::domain::definition::Experiment;
use crate::domain::id::RecurringRunId;
use crate::domain::recurring::{PipelineChoice, RecurringRun};
use crate::store::row;

/// Recurring runs as they can be listed.
pub(crate) const TABLE: Table = Table {
    name: "recurring_runs",
    columns: COLUMNS,
    keys: &[
        ("recurring_run_id", "id", ColumnType::Text),
        ("id", "id", ColumnType::Text),
        ("display_name", "display_name", ColumnType::Text),
        ("name", "display_name", ColumnType::Text),
        ("created_at", "created_at", ColumnType::Time),
        ("updated_at", "updated_at", ColumnType::Time),
        ("description", "description", ColumnType::Text),
        ("status", "status", ColumnType::Text),
        ("experiment_id", "experiment_id", ColumnType::Text),
        ("namespace", "namespace", ColumnType::Text),
    ],
    tagged: false,
    text_index: None,
};

/// Every column, as `concat!` takes it.
macro_rules! columns {
    () => {
        "id, namespace, experiment_id, display_name, description, pipeline_id, \
            pipeline_version_id, spec_digest, parameters, pipeline_root, service_account, \
            trigger_kind, cron, interval_s, start_at, end_at, max_concurrency, no_catchup, status, \
            error_code, error_message, created_at, updated_at, cursor_at, fired, next_due_at, \
            event_sequence, created_by"
    };
}

const COLUMNS: &str = columns!();

const INSERT: &str = concat!(
    "INSERT INTO recurring_runs (",
    columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
     $20, $21, $22, $23, $24, $25, $26, $27, $28)"
);

const GET: &str = concat!("SELECT ", columns!(), " FROM recurring_runs WHERE id = $1");

const ENABLED_AFTER: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM recurring_runs WHERE status = 'ENABLED' AND id > $1 ORDER BY id LIMIT $2"
);

const SET: &str = "UPDATE recurring_runs SET status = $2, error_code = $3, error_message = $4, \
    updated_at = $5, cursor_at = $6, fired = $7, next_due_at = $8, event_sequence = $9 \
    WHERE id = $1";

const ENABLED_OF_EXPERIMENT: &str = "SELECT id FROM recurring_runs \
    WHERE namespace = $1 AND experiment_id = $2 AND status = 'ENABLED' ORDER BY id";

// `$2` and `$3` are the last entry of the page before. A schedule with `max_concurrency` runs under
// way is left out; the end of one of them is a signal to look again.
const DUE: &str = "SELECT id, next_due_at, namespace FROM recurring_runs WHERE status = 'ENABLED' \
    AND next_due_at <= $1 AND (next_due_at > $2 OR (next_due_at = $2 AND id > $3)) \
    AND (SELECT COUNT(*) FROM runs WHERE runs.recurring_run_id = recurring_runs.id \
    AND runs.finished_at = 0) < max_concurrency ORDER BY next_due_at, id LIMIT $4";

const NEXT_DUE: &str = "SELECT next_due_at FROM recurring_runs WHERE status = 'ENABLED' \
    AND next_due_at > $1 ORDER BY next_due_at LIMIT 1";

const DELETE: &str = "DELETE FROM recurring_runs WHERE id = $1";

const ENABLED: &str = "ENABLED";
const DISABLED: &str = "DISABLED";

fn status(run: &RecurringRun) -> &'static str {
    if run.enabled { ENABLED } else { DISABLED }
}

/// Adds a recurring run.
pub(crate) async fn insert(tx: &mut WriteTx, run: &RecurringRun) -> Result<(), DbError> {
    let (pipeline, version, digest) = match &run.pipeline {
        PipelineChoice::Version {
            pipeline,
            version,
            digest,
        } => (Some(pipeline), Some(version), digest.as_str()),
        PipelineChoice::Latest { pipeline } => (Some(pipeline), None, ""),
        PipelineChoice::Inline { digest } => (None, None, digest.as_str()),
    };
    let (kind, cron, interval) = match &run.trigger.when {
        When::Cron(cron) => ("CRON", cron.as_str(), 0),
        When::Periodic(seconds) => ("PERIODIC", "", *seconds),
        When::Once => ("ONCE", "", 0),
    };
    let (code, message) = row::error_cells(run.error.as_ref());
    sqlx::query(INSERT)
        .bind(run.id.to_string())
        .bind(run.namespace.as_str())
        .bind(run.experiment.to_string())
        .bind(&run.display_name)
        .bind(&run.description)
        .bind(pipeline.map(ToString::to_string))
        .bind(version.map(ToString::to_string))
        .bind(digest)
        .bind(json_text(&run.parameters))
        .bind(&run.root_given)
        .bind(&run.service_account)
        .bind(kind)
        .bind(cron)
        .bind(interval)
        .bind(run.trigger.start.map(Timestamp::millis))
        .bind(run.trigger.end.map(Timestamp::millis))
        .bind(run.limits.max_concurrency)
        .bind(i64::from(run.limits.no_catchup))
        .bind(status(run))
        .bind(code)
        .bind(message)
        .bind(run.created_at.millis())
        .bind(run.updated_at.millis())
        .bind(run.progress.cursor.millis())
        .bind(run.progress.fired)
        .bind(run.next_due.map(Timestamp::millis))
        .bind(run.event_sequence)
        .bind(&run.created_by)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The recurring run of this id.
pub(crate) async fn get(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: RecurringRunId,
) -> Result<Option<RecurringRun>, DbError> {
    let row = sqlx::query(GET)
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await?;
    decode_visible(scope, row.as_ref(), decode)
}

/// The recurring run of this id, which nobody else changes before the transaction ends.
pub(crate) async fn lock(
    tx: &mut WriteTx,
    scope: &impl Scope,
    id: RecurringRunId,
) -> Result<Option<RecurringRun>, DbError> {
    tx.lock_row("recurring_runs", id).await?;
    get(tx, scope, id).await
}

/// Stores what may change of one that is locked.
pub(crate) async fn set(tx: &mut WriteTx, run: &RecurringRun) -> Result<(), DbError> {
    let (code, message) = row::error_cells(run.error.as_ref());
    let result = sqlx::query(SET)
        .bind(run.id.to_string())
        .bind(status(run))
        .bind(code)
        .bind(message)
        .bind(run.updated_at.millis())
        .bind(run.progress.cursor.millis())
        .bind(run.progress.fired)
        .bind(run.next_due.map(Timestamp::millis))
        .bind(run.event_sequence)
        .execute(tx.conn())
        .await?;
    ferroflow_db::ensure_one(&result, "recurring_runs")
}

/// Removes one; its runs stay.
pub(crate) async fn delete(tx: &mut WriteTx, id: RecurringRunId) -> Result<bool, DbError> {
    let query = sqlx::query(DELETE).bind(id.to_string());
    Ok(query.execute(tx.conn()).await?.rows_affected() == 1)
}

/// A recurring run that is due, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DueSince {
    pub at: Timestamp,
    pub id: RecurringRunId,
}

/// Some that are due at `now` and have a slot, those that wait the longest first; those after
/// `after`, where it is given.
pub(crate) async fn due(
    tx: &mut impl Read,
    scope: &impl Scope,
    now: Timestamp,
    after: Option<DueSince>,
    limit: i64,
) -> Result<Vec<DueSince>, DbError> {
    let rows = sqlx::query(DUE)
        .bind(now.millis())
        .bind(after.map_or(i64::MIN, |after| after.at.millis()))
        .bind(after.map_or_else(String::new, |after| after.id.to_string()))
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
    let due_since = |row: &AnyRow| {
        let cells = Cells::of("recurring_runs", row);
        let (at, id) = (cells.time("next_due_at")?, cells.parsed("id")?);
        Ok(DueSince { at, id })
    };
    decode_all_visible(scope, &rows, due_since)
}

/// When the next one will be due after `now`.
pub(crate) async fn next_due(
    tx: &mut impl Read,
    now: Timestamp,
) -> Result<Option<Timestamp>, DbError> {
    let query = sqlx::query(NEXT_DUE).bind(now.millis());
    let row = query.fetch_optional(tx.conn()).await?;
    row.map(|row| Cells::of("recurring_runs", &row).time("next_due_at"))
        .transpose()
}

/// The enabled ones whose ids come after `after`, by id.
pub(crate) async fn enabled_after(
    tx: &mut impl Read,
    scope: &impl Scope,
    after: &str,
    limit: i64,
) -> Result<Vec<RecurringRun>, DbError> {
    let query = sqlx::query(ENABLED_AFTER).bind(after).bind(limit);
    let rows = query.fetch_all(tx.conn()).await?;
    decode_all_visible(scope, &rows, decode)
}

/// The enabled ones of an experiment.
pub(crate) async fn enabled_of_experiment(
    tx: &mut impl Read,
    experiment: &Experiment,
) -> Result<Vec<RecurringRunId>, DbError> {
    let query = sqlx::query(ENABLED_OF_EXPERIMENT)
        .bind(experiment.namespace.as_str())
        .bind(experiment.id.to_string());
    let rows = query.fetch_all(tx.conn()).await?;
    rows.iter().map(id_of).collect()
}

fn id_of(row: &AnyRow) -> Result<RecurringRunId, DbError> {
    Cells::of("recurring_runs", row).parsed("id")
}

/// A recurring run out of a row.
pub(crate) fn decode(row: &AnyRow) -> Result<RecurringRun, DbError> {
    let cells = Cells::of("recurring_runs", row);
    let digest = cells.text("spec_digest")?;
    let pipeline = match (
        cells.parsed_opt("pipeline_id")?,
        cells.parsed_opt("pipeline_version_id")?,
    ) {
        (Some(pipeline), Some(version)) => PipelineChoice::Version {
            pipeline,
            version,
            digest,
        },
        (Some(pipeline), None) => PipelineChoice::Latest { pipeline },
        (None, _) => PipelineChoice::Inline { digest },
    };
    let (cron, interval) = (cells.text("cron")?, cells.int("interval_s")?);
    let when = cells.enum_value("trigger_kind", |kind| match kind {
        "CRON" => Some(When::Cron(cron.clone())),
        "PERIODIC" => Some(When::Periodic(interval)),
        "ONCE" => Some(When::Once),
        _ => None,
    })?;
    Ok(RecurringRun {
        id: cells.parsed("id")?,
        namespace: cells.parsed("namespace")?,
        experiment: cells.parsed("experiment_id")?,
        display_name: cells.text("display_name")?,
        description: cells.text("description")?,
        pipeline,
        parameters: cells.json::<Map<String, Value>>("parameters")?,
        root_given: cells.text("pipeline_root")?,
        service_account: cells.text("service_account")?,
        trigger: Trigger {
            when,
            start: cells.time_opt("start_at")?,
            end: cells.time_opt("end_at")?,
        },
        limits: Limits {
            max_concurrency: cells.int("max_concurrency")?,
            no_catchup: cells.int("no_catchup")? != 0,
        },
        enabled: cells.enum_value("status", |word| match word {
            ENABLED => Some(true),
            DISABLED => Some(false),
            _ => None,
        })?,
        error: row::error(&cells)?,
        created_at: cells.time("created_at")?,
        updated_at: cells.time("updated_at")?,
        progress: Progress {
            cursor: cells.time("cursor_at")?,
            fired: cells.int("fired")?,
        },
        next_due: cells.time_opt("next_due_at")?,
        event_sequence: cells.int("event_sequence")?,
        created_by: cells.text("created_by")?,
    })
}
