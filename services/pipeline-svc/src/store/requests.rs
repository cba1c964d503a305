//! The table `run_requests`: what drivers of runs are asked by those who do not drive them.

use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_types::{RunId, Timestamp};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::domain::request::{Refusal, Request, answer_text, parse_answer};
use crate::store::claims::{Claim, Found};
use ferroflow_db::row::Cells;

/// A request that nobody has answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Its id.
    pub id: Uuid,
    /// The run that it is about.
    pub run: RunId,
    /// What is asked.
    pub request: Request,
    /// Who drives the run; `None` when there is no such run any more.
    pub found: Option<Found>,
}

const INSERT: &str = "INSERT INTO run_requests (id, run_id, request, created_at, answered_at, \
    answer) VALUES ($1, $2, $3, $4, 0, '')";

const PENDING: &str = "SELECT q.id, q.run_id, q.request, r.owner, r.fence FROM run_requests q \
    LEFT JOIN runs r ON r.id = q.run_id WHERE q.answered_at = 0 ORDER BY q.created_at, q.id \
    LIMIT $1";

const ANSWER: &str = "UPDATE run_requests SET answered_at = $2, answer = $3 \
    WHERE id = $1 AND answered_at = 0";

const ANSWER_OF: &str = "SELECT answer FROM run_requests WHERE id = $1 AND answered_at <> 0";

const REMOVE_ANSWERED: &str = "DELETE FROM run_requests WHERE id = $1 AND answered_at <> 0";

const WITHDRAW: &str = "DELETE FROM run_requests WHERE id = $1 AND answered_at = 0";

const FORGET: &str = "DELETE FROM run_requests WHERE created_at < $1";

/// Asks the driver of a run, whoever that is by the time it is answered.
pub(crate) async fn insert(
    tx: &mut WriteTx,
    id: Uuid,
    run: RunId,
    request: Request,
    now: Timestamp,
) -> Result<(), DbError> {
    sqlx::query(INSERT)
        .bind(id.to_string())
        .bind(run.to_string())
        .bind(request.as_str())
        .bind(now.millis())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Requests without an answer, oldest first.
pub(crate) async fn pending(tx: &mut impl Read, limit: i64) -> Result<Vec<Pending>, DbError> {
    let rows = sqlx::query(PENDING)
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
    rows.iter().map(decode).collect()
}

/// Answers a request; `false` if it was withdrawn, and then what it asked for must not be done.
pub(crate) async fn answer(
    tx: &mut WriteTx,
    id: Uuid,
    answer: Result<(), Refusal>,
    now: Timestamp,
) -> Result<bool, DbError> {
    let done = sqlx::query(ANSWER)
        .bind(id.to_string())
        .bind(now.millis())
        .bind(answer_text(answer))
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The answer, once there is one.
pub(crate) async fn answer_of(
    tx: &mut impl Read,
    id: Uuid,
) -> Result<Option<Result<(), Refusal>>, DbError> {
    let row = sqlx::query(ANSWER_OF)
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref()
        .map(|row| Cells::of("run_requests", row).word("answer", parse_answer))
        .transpose()
}

/// Forgets a request whose answer has been read.
pub(crate) async fn remove_answered(tx: &mut WriteTx, id: Uuid) -> Result<(), DbError> {
    sqlx::query(REMOVE_ANSWERED)
        .bind(id.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes a request back; `false` if it has been answered meanwhile.
pub(crate) async fn withdraw(tx: &mut WriteTx, id: Uuid) -> Result<bool, DbError> {
    let query = sqlx::query(WITHDRAW).bind(id.to_string());
    Ok(query.execute(tx.conn()).await?.rows_affected() == 1)
}

/// Forgets what was asked before `before`: nobody waits for an answer any more.
pub(crate) async fn forget(tx: &mut WriteTx, before: Timestamp) -> Result<(), DbError> {
    sqlx::query(FORGET)
        .bind(before.millis())
        .execute(tx.conn())
        .await?;
    Ok(())
}

fn decode(row: &AnyRow) -> Result<Pending, DbError> {
    let cells = Cells::of("run_requests", row);
    let run = cells.parsed("run_id")?;
    let owner = cells.text_opt("owner")?;
    let found = match owner {
        Some(owner) => Some(Found {
            claim: Claim {
                run,
                fence: row.try_get("fence")?,
            },
            owner,
        }),
        None => None,
    };
    Ok(Pending {
        id: cells.parsed("id")?,
        run,
        request: cells.word("request", Request::parse)?,
        found,
    })
}
