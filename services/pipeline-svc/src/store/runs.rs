//! The table `runs`.

use std::collections::BTreeMap;

use ferroflow_db::list::{ColumnType, Table, TextIndex};
use ferroflow_db::row::{Cells, decode_visible, json_text};
use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_types::{RunId, Scope, Timestamp};
use serde_json::{Map, Value};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::domain::definition::Experiment;
use crate::domain::recurring::RecurringRun;
use crate::domain::run::{Run, RunStatus, Source, StatusChange, StorageState};
use crate::store::ownership::Claim;
use crate::store::row;

/// Runs as they can be listed.
pub(crate) const TABLE: Table = Table {
    name: "runs",
    columns: COLUMNS,
    keys: KEYS,
    tagged: false,
    text_index: Some(TextIndex {
        table: "runs_texts",
        columns: &["display_name", "description", "pipeline_name"],
    }),
};

const KEYS: &[(&str, &str, ColumnType)] = &[
    ("run_id", "id", ColumnType::Text),
    ("id", "id", ColumnType::Text),
    ("display_name", "display_name", ColumnType::Text),
    ("name", "display_name", ColumnType::Text),
    ("created_at", "created_at", ColumnType::Time),
    ("finished_at", "finished_at", ColumnType::Time),
    ("scheduled_at", "scheduled_at", ColumnType::Time),
    ("description", "description", ColumnType::Text),
    ("storage_state", "storage_state", ColumnType::Text),
    ("state", "state", ColumnType::Text),
    ("status", "state", ColumnType::Text),
    ("namespace", "namespace", ColumnType::Text),
    ("experiment_id", "experiment_id", ColumnType::Text),
    ("recurring_run_id", "recurring_run_id", ColumnType::Text),
    // Beyond those of KFP.
    ("pipeline_name", "pipeline_name", ColumnType::Text),
    ("pipeline_id", "pipeline_id", ColumnType::Optional),
];

/// Every column of a run.
const COLUMNS: &str = "id, namespace, experiment_id, display_name, description, \
    storage_state, state, pipeline_id, pipeline_version_id, recurring_run_id, spec_digest, \
    pipeline_name, parameters_given, parameters, pipeline_root_given, pipeline_root, \
    service_account, caching, created_at, scheduled_at, started_at, finished_at, error_code, \
    error_message, state_history, traceparent, event_sequence, created_by";

const INSERT: &str = "INSERT INTO runs (id, namespace, experiment_id, display_name, description, \
    storage_state, state, pipeline_id, pipeline_version_id, recurring_run_id, spec_digest, \
    pipeline_name, parameters_given, parameters, pipeline_root_given, pipeline_root, \
    service_account, caching, created_at, scheduled_at, started_at, finished_at, error_code, \
    error_message, state_history, traceparent, event_sequence, created_by, owner, fence) VALUES ($1, $2, $3, $4, \
    $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, \
    $25, $26, $27, $28, $29, $30)";

const GET: &str = "SELECT id, namespace, experiment_id, display_name, description, \
    storage_state, state, pipeline_id, pipeline_version_id, recurring_run_id, spec_digest, \
    pipeline_name, parameters_given, parameters, pipeline_root_given, pipeline_root, \
    service_account, caching, created_at, scheduled_at, started_at, finished_at, error_code, \
    error_message, state_history, traceparent, event_sequence, created_by FROM runs WHERE id = $1";

// The fence in the condition is the check of the claim: a driver that has lost it meets no row.
const SET_PROGRESS: &str = "UPDATE runs SET state = $2, started_at = $3, finished_at = $4, \
    error_code = $5, error_message = $6, state_history = $7, event_sequence = $8 WHERE id = $1 AND fence = $9";

const SET_DRIVEN_EVENT_SEQUENCE: &str =
    "UPDATE runs SET event_sequence = $2 WHERE id = $1 AND fence = $3";

// Nobody drives a run that has ended, so no claim guards it: if the number was taken meanwhile, this
// meets no row.
const SET_EVENT_SEQUENCE: &str =
    "UPDATE runs SET event_sequence = $2 WHERE id = $1 AND event_sequence = $2 - 1";

// Without a fence, as drivers never write this column.
const SET_STORAGE: &str = "UPDATE runs SET storage_state = $2 WHERE id = $1";

const ARCHIVE_OF_EXPERIMENT: &str =
    "UPDATE runs SET storage_state = 'ARCHIVED' WHERE namespace = $1 AND experiment_id = $2";

// `finished_at = 0` is the condition of the partial index `runs_under_way_by_recurring`.
const COUNT_ACTIVE: &str =
    "SELECT COUNT(*) AS n FROM runs WHERE recurring_run_id = $1 AND finished_at = 0";

// Tasks go with their run by `ON DELETE CASCADE`. Artifacts and cached results do not refer to it.
const DELETE: &str = "DELETE FROM runs WHERE id = $1 AND fence = $2";

/// Adds a run that `owner` drives under the first fence, or nobody yet when it is empty.
pub(crate) async fn insert(tx: &mut WriteTx, run: &Run, owner: &str) -> Result<(), DbError> {
    let (pipeline, version) = match run.source {
        Source::Version { pipeline, version } => {
            (Some(pipeline.to_string()), Some(version.to_string()))
        }
        Source::Inline => (None, None),
    };
    let (code, message) = row::error_cells(run.error.as_ref());
    sqlx::query(INSERT)
        .bind(run.id.to_string())
        .bind(run.namespace.as_str())
        .bind(run.experiment.to_string())
        .bind(&run.display_name)
        .bind(&run.description)
        .bind(run.storage.as_str())
        .bind(run.status.as_str())
        .bind(pipeline)
        .bind(version)
        // Empty and not NULL where there is none, since lists can be sorted by it.
        .bind(
            run.recurring_run
                .map_or_else(String::new, |id| id.to_string()),
        )
        .bind(&run.spec_digest)
        .bind(&run.pipeline_name)
        .bind(json_text(&run.parameters_given))
        .bind(json_text(&run.parameters))
        .bind(&run.root_given)
        .bind(&run.root)
        .bind(&run.service_account)
        .bind(i64::from(run.caching))
        .bind(run.created_at.millis())
        .bind(run.scheduled_at.millis())
        .bind(run.started_at.map(Timestamp::millis))
        // 0 and not NULL until it ends, since lists can be sorted by it.
        .bind(run.finished_at.map_or(0, Timestamp::millis))
        .bind(code)
        .bind(message)
        .bind(json_text(&run.history))
        .bind(&run.traceparent)
        .bind(run.event_sequence)
        .bind(&run.created_by)
        .bind(owner)
        .bind(Claim::FIRST_FENCE)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// A run, if there is one of this id in the scope.
pub(crate) async fn get(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: RunId,
) -> Result<Option<Run>, DbError> {
    let row = sqlx::query(GET)
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await?;
    decode_visible(scope, row.as_ref(), decode)
}

/// Whether there is a run of this id, whoever may see it.
pub(crate) async fn is_taken(tx: &mut impl Read, id: RunId) -> Result<bool, DbError> {
    let query = sqlx::query("SELECT id FROM runs WHERE id = $1").bind(id.to_string());
    Ok(query.fetch_optional(tx.conn()).await?.is_some())
}

/// Stores where a run stands; everything else of a run never changes. `false` if the claim is lost
/// or the run gone.
pub(crate) async fn set_progress(
    tx: &mut WriteTx,
    run: &Run,
    claim: Claim,
) -> Result<bool, DbError> {
    let (code, message) = row::error_cells(run.error.as_ref());
    let result = sqlx::query(SET_PROGRESS)
        .bind(run.id.to_string())
        .bind(run.status.as_str())
        .bind(run.started_at.map(Timestamp::millis))
        .bind(run.finished_at.map_or(0, Timestamp::millis))
        .bind(code)
        .bind(message)
        .bind(json_text(&run.history))
        .bind(run.event_sequence)
        .bind(claim.fence)
        .execute(tx.conn())
        .await?;
    Ok(result.rows_affected() == 1)
}

/// Stores how many events its driver told; `false` if the claim is lost or the run gone.
pub(crate) async fn set_driven_event_sequence(
    tx: &mut WriteTx,
    run: &Run,
    claim: Claim,
) -> Result<bool, DbError> {
    let result = sqlx::query(SET_DRIVEN_EVENT_SEQUENCE)
        .bind(run.id.to_string())
        .bind(run.event_sequence)
        .bind(claim.fence)
        .execute(tx.conn())
        .await?;
    Ok(result.rows_affected() == 1)
}

/// Stores how many events were told of a run that nobody drives; `false` if it is gone, or told of
/// something else meanwhile.
pub(crate) async fn set_event_sequence(tx: &mut WriteTx, run: &Run) -> Result<bool, DbError> {
    let result = sqlx::query(SET_EVENT_SEQUENCE)
        .bind(run.id.to_string())
        .bind(run.event_sequence)
        .execute(tx.conn())
        .await?;
    Ok(result.rows_affected() == 1)
}

/// Puts a run away or brings it back.
pub(crate) async fn set_storage(
    tx: &mut WriteTx,
    id: RunId,
    storage: StorageState,
) -> Result<bool, DbError> {
    let query = sqlx::query(SET_STORAGE)
        .bind(id.to_string())
        .bind(storage.as_str());
    Ok(query.execute(tx.conn()).await?.rows_affected() == 1)
}

/// Puts every run of an experiment away.
pub(crate) async fn archive_of_experiment(
    tx: &mut WriteTx,
    experiment: &Experiment,
) -> Result<(), DbError> {
    sqlx::query(ARCHIVE_OF_EXPERIMENT)
        .bind(experiment.namespace.as_str())
        .bind(experiment.id.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// How many runs of a recurring run have not ended.
pub(crate) async fn count_active(
    tx: &mut impl Read,
    recurring_run: &RecurringRun,
) -> Result<i64, DbError> {
    let query = sqlx::query(COUNT_ACTIVE).bind(recurring_run.id.to_string());
    Ok(query.fetch_one(tx.conn()).await?.try_get("n")?)
}

/// Removes a run and its tasks; artifacts stay. `false` if the claim is lost or the run gone.
pub(crate) async fn delete(tx: &mut WriteTx, claim: Claim) -> Result<bool, DbError> {
    let result = sqlx::query(DELETE)
        .bind(claim.key.to_string())
        .bind(claim.fence)
        .execute(tx.conn())
        .await?;
    Ok(result.rows_affected() == 1)
}

/// A run out of a row that has [`COLUMNS`].
pub(crate) fn decode(row: &AnyRow) -> Result<Run, DbError> {
    let cells = Cells::of("runs", row);
    let source = match (
        cells.parsed_opt("pipeline_id")?,
        cells.parsed_opt("pipeline_version_id")?,
    ) {
        (Some(pipeline), Some(version)) => Source::Version { pipeline, version },
        _ => Source::Inline,
    };
    Ok(Run {
        id: cells.parsed("id")?,
        namespace: cells.parsed("namespace")?,
        experiment: cells.parsed("experiment_id")?,
        display_name: cells.text("display_name")?,
        description: cells.text("description")?,
        storage: cells.enum_value("storage_state", StorageState::parse)?,
        status: cells.enum_value("state", RunStatus::parse)?,
        source,
        recurring_run: match cells.text("recurring_run_id")?.as_str() {
            "" => None,
            _ => Some(cells.parsed("recurring_run_id")?),
        },
        spec_digest: cells.text("spec_digest")?,
        pipeline_name: cells.text("pipeline_name")?,
        parameters_given: cells.json::<Map<String, Value>>("parameters_given")?,
        parameters: cells.json::<BTreeMap<String, Value>>("parameters")?,
        root_given: cells.text("pipeline_root_given")?,
        root: cells.text("pipeline_root")?,
        service_account: cells.text("service_account")?,
        caching: cells.int("caching")? != 0,
        created_at: cells.time("created_at")?,
        scheduled_at: cells.time("scheduled_at")?,
        started_at: cells.time_opt("started_at")?,
        finished_at: Some(cells.time("finished_at")?).filter(|at| *at != Timestamp::EPOCH),
        error: row::error(&cells)?,
        history: cells.json::<Vec<StatusChange>>("state_history")?,
        traceparent: cells.text("traceparent")?,
        event_sequence: cells.int("event_sequence")?,
        created_by: cells.text("created_by")?,
    })
}
