//! The table `experiments`.

use ferroflow_db::list::{ColumnType, Table};
use ferroflow_db::row::{Cells, decode_visible};
use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_types::{Namespace, Scope, Timestamp};
use sqlx::any::AnyRow;

use crate::domain::definition::Experiment;
use crate::domain::id::ExperimentId;
use crate::domain::run::StorageState;

/// Experiments as they can be listed.
pub(crate) const TABLE: Table = Table {
    name: "experiments",
    columns: "id, namespace, display_name, description, storage_state, is_default, created_at, \
              last_run_created_at, event_sequence, created_by",
    keys: &[
        ("id", "id", ColumnType::Text),
        ("experiment_id", "id", ColumnType::Text),
        ("name", "display_name", ColumnType::Text),
        ("display_name", "display_name", ColumnType::Text),
        ("created_at", "created_at", ColumnType::Time),
        (
            "last_run_created_at",
            "last_run_created_at",
            ColumnType::Time,
        ),
        ("description", "description", ColumnType::Text),
        ("namespace", "namespace", ColumnType::Text),
        ("storage_state", "storage_state", ColumnType::Text),
    ],
    tagged: false,
    text_index: None,
};

const GET: &str = "SELECT id, namespace, display_name, description, storage_state, is_default, \
    created_at, last_run_created_at, event_sequence, created_by FROM experiments WHERE id = $1";

const DEFAULT: &str = "SELECT id, namespace, display_name, description, storage_state, \
    is_default, created_at, last_run_created_at, event_sequence, created_by FROM experiments \
    WHERE namespace = $1 AND is_default = 1";

const ENSURE_DEFAULT: &str = "INSERT INTO experiments (id, namespace, display_name, description, \
    storage_state, is_default, created_at, last_run_created_at, event_sequence) \
    VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8) \
    ON CONFLICT DO NOTHING";

// For an experiment that a client made under this name: the insert above does nothing
// then, as the name is taken.
const MAKE_DEFAULT: &str = "UPDATE experiments SET is_default = 1 \
    WHERE namespace = $1 AND display_name = $2 AND NOT EXISTS (SELECT 1 FROM experiments AS others \
    WHERE others.namespace = $1 AND others.is_default = 1)";

const UPSERT: &str = "INSERT INTO experiments (id, namespace, display_name, description, \
    storage_state, is_default, created_at, last_run_created_at, event_sequence, created_by) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO UPDATE SET \
    storage_state = excluded.storage_state, last_run_created_at = excluded.last_run_created_at, \
    event_sequence = excluded.event_sequence";

const TOUCH: &str = "UPDATE experiments SET last_run_created_at = $2 WHERE id = $1";

/// Adds an experiment, or stores what may change of one.
pub(crate) async fn put(tx: &mut WriteTx, experiment: &Experiment) -> Result<(), DbError> {
    sqlx::query(UPSERT)
        .bind(experiment.id.to_string())
        .bind(experiment.namespace.as_str())
        .bind(&experiment.display_name)
        .bind(&experiment.description)
        .bind(experiment.storage.as_str())
        .bind(i64::from(experiment.is_default))
        .bind(experiment.created_at.millis())
        .bind(experiment.last_run_created_at.millis())
        .bind(experiment.event_sequence)
        .bind(&experiment.created_by)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The experiment of this id.
pub(crate) async fn get(
    tx: &mut impl Read,
    scope: &impl Scope,
    id: ExperimentId,
) -> Result<Option<Experiment>, DbError> {
    let row = sqlx::query(GET)
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await?;
    decode_visible(scope, row.as_ref(), decode)
}

/// The experiment of runs that name none.
pub(crate) async fn default_of(
    tx: &mut impl Read,
    namespace: &Namespace,
) -> Result<Option<Experiment>, DbError> {
    let row = sqlx::query(DEFAULT)
        .bind(namespace.as_str())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Makes an experiment the default one of its namespace, or the one that has its name already.
///
/// Of two transactions that need the default experiment at once, the second waits for the first and
/// takes its row. Two unique indexes can stop it: by name, and by the default of a namespace. An
/// `ON CONFLICT` that named one of them failed now and then at the other on PostgreSQL.
pub(crate) async fn ensure_default(
    tx: &mut WriteTx,
    experiment: &Experiment,
) -> Result<(), DbError> {
    sqlx::query(ENSURE_DEFAULT)
        .bind(experiment.id.to_string())
        .bind(experiment.namespace.as_str())
        .bind(&experiment.display_name)
        .bind(&experiment.description)
        .bind(experiment.storage.as_str())
        .bind(experiment.created_at.millis())
        .bind(experiment.last_run_created_at.millis())
        .bind(experiment.event_sequence)
        .execute(tx.conn())
        .await?;
    sqlx::query(MAKE_DEFAULT)
        .bind(experiment.namespace.as_str())
        .bind(&experiment.display_name)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes note of a new run.
pub(crate) async fn touch(
    tx: &mut WriteTx,
    id: ExperimentId,
    now: Timestamp,
) -> Result<(), DbError> {
    sqlx::query(TOUCH)
        .bind(id.to_string())
        .bind(now.millis())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Removes an experiment; its runs stay.
pub(crate) async fn delete(tx: &mut WriteTx, id: ExperimentId) -> Result<bool, DbError> {
    let query = sqlx::query("DELETE FROM experiments WHERE id = $1").bind(id.to_string());
    Ok(query.execute(tx.conn()).await?.rows_affected() == 1)
}

/// An experiment out of a row.
pub(crate) fn decode(row: &AnyRow) -> Result<Experiment, DbError> {
    let cells = Cells::of("experiments", row);
    Ok(Experiment {
        id: cells.parsed("id")?,
        namespace: cells.parsed("namespace")?,
        display_name: cells.text("display_name")?,
        description: cells.text("description")?,
        storage: cells.enum_value("storage_state", StorageState::parse)?,
        is_default: cells.int("is_default")? != 0,
        created_at: cells.time("created_at")?,
        last_run_created_at: cells.time("last_run_created_at")?,
        event_sequence: cells.int("event_sequence")?,
        created_by: cells.text("created_by")?,
    })
}
