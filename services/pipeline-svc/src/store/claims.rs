//! Who drives a run: the columns `owner` and `fence` of `runs`.

use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_types::RunId;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use ferroflow_db::row::Cells;

/// The right to drive a run. It is lost when the run's fence has moved on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The run.
    pub run: RunId,
    /// The fence under which it is driven.
    pub fence: i64,
}

/// A run as one who may want it finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The run and its fence at the moment.
    pub claim: Claim,
    /// The replica that drives it, empty for none.
    pub owner: String,
}

/// The fence of a run that its creator drives.
pub(crate) const FIRST_FENCE: i64 = 1;

const FIND: &str = "SELECT id, owner, fence FROM runs WHERE id = $1";

const OF_OWNER: &str = "SELECT id, owner, fence FROM runs WHERE owner = $1 AND finished_at = 0 \
    ORDER BY created_at, id LIMIT $2";

const CLAIM: &str = "UPDATE runs SET owner = $1, fence = fence + 1 \
    WHERE id = $2 AND owner = $3 AND fence = $4";

const RELEASE: &str = "UPDATE runs SET owner = '', fence = fence + 1 \
    WHERE owner = $1 AND finished_at = 0";

const RELEASE_ALL: &str = "UPDATE runs SET owner = '', fence = fence + 1 \
    WHERE owner <> '' AND finished_at = 0";

/// Who drives the run, if there is one of this id.
pub(crate) async fn find(tx: &mut impl Read, run: RunId) -> Result<Option<Found>, DbError> {
    let row = sqlx::query(FIND)
        .bind(run.to_string())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(decode).transpose()
}

/// Runs that have not ended and are this replica's, or nobody's when it is empty; oldest first.
pub(crate) async fn of_owner(
    tx: &mut impl Read,
    owner: &str,
    limit: usize,
) -> Result<Vec<Found>, DbError> {
    let rows = sqlx::query(OF_OWNER)
        .bind(owner)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(tx.conn())
        .await?;
    rows.iter().map(decode).collect()
}

/// Takes a run as it was found; `None` when somebody else was faster.
pub(crate) async fn claim(
    tx: &mut WriteTx,
    found: &Found,
    me: &str,
) -> Result<Option<Claim>, DbError> {
    let Claim { run, fence } = found.claim;
    let done = sqlx::query(CLAIM)
        .bind(me)
        .bind(run.to_string())
        .bind(&found.owner)
        .bind(fence)
        .execute(tx.conn())
        .await?;
    let fence = fence + 1;
    Ok((done.rows_affected() == 1).then_some(Claim { run, fence }))
}

/// Gives back every run of this replica that has not ended; how many there were.
pub(crate) async fn release(tx: &mut WriteTx, owner: &str) -> Result<u64, DbError> {
    let query = sqlx::query(RELEASE).bind(owner);
    Ok(query.execute(tx.conn()).await?.rows_affected())
}

/// Gives back every run that has not ended, whoever had it: for one who is alone.
pub(crate) async fn release_all(tx: &mut WriteTx) -> Result<u64, DbError> {
    let query = sqlx::query(RELEASE_ALL);
    Ok(query.execute(tx.conn()).await?.rows_affected())
}

fn decode(row: &AnyRow) -> Result<Found, DbError> {
    Ok(Found {
        claim: Claim {
            run: Cells::of("runs", row).parsed("id")?,
            fence: row.try_get("fence")?,
        },
        owner: row.try_get("owner")?,
    })
}
