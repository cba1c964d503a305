//! The table of stored requests: what drivers are asked by replicas that do not drive the object.

use ferroflow_db::row::Cells;
use ferroflow_db::{DbError, Read, WriteTx};
use ferroflow_types::Timestamp;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::claim::{Claim, ClaimRow};
use crate::{Owned, Text as _};

/// The text of an answer that is no refusal.
pub const DONE: &str = "DONE";

/// A request that nobody has answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest<K, R> {
    /// Its id.
    pub id: Uuid,
    /// The object that it is about.
    pub key: K,
    /// What is asked.
    pub request: R,
    /// Who drives the object; `None` when it is gone.
    pub found: Option<ClaimRow<K>>,
}

/// A pending request to a driver of an `O`.
pub type PendingRequestOf<O> = PendingRequest<<O as Owned>::Key, <O as Owned>::Request>;

/// Asks the driver of an object, whoever that is by the time it is answered.
pub async fn insert<O: Owned>(
    tx: &mut WriteTx,
    id: Uuid,
    key: O::Key,
    request: &O::Request,
    now: Timestamp,
) -> Result<(), DbError> {
    sqlx::query(O::REQUESTS.insert)
        .bind(id.to_string())
        .bind(key.to_string())
        .bind(request.to_text())
        .bind(now.millis())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Requests without an answer, oldest first.
pub async fn pending<O: Owned>(
    tx: &mut impl Read,
    limit: i64,
) -> Result<Vec<PendingRequestOf<O>>, DbError> {
    let rows = sqlx::query(O::REQUESTS.pending)
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
    rows.iter().map(decode::<O>).collect()
}

/// Answers a request; `false` if it was withdrawn, and then what it asked for must not be done.
pub async fn answer<O: Owned>(
    tx: &mut WriteTx,
    id: Uuid,
    answer: Result<(), O::Refusal>,
    now: Timestamp,
) -> Result<bool, DbError> {
    let text = match answer {
        Ok(()) => DONE.to_owned(),
        Err(refusal) => refusal.to_text(),
    };
    let result = sqlx::query(O::REQUESTS.answer)
        .bind(id.to_string())
        .bind(now.millis())
        .bind(text)
        .execute(tx.conn())
        .await?;
    Ok(result.rows_affected() == 1)
}

/// The answer, once there is one.
pub async fn answer_of<O: Owned>(
    tx: &mut impl Read,
    id: Uuid,
) -> Result<Option<Result<(), O::Refusal>>, DbError> {
    let row = sqlx::query(O::REQUESTS.answer_of)
        .bind(id.to_string())
        .fetch_optional(tx.conn())
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let answer_in = |text: &str| match text {
        DONE => Some(Ok(())),
        text => O::Refusal::from_text(text).map(Err),
    };
    let answer = Cells::of(O::REQUESTS.table, &row).enum_value("answer", answer_in)?;
    Ok(Some(answer))
}

/// Deletes a request whose answer has been read.
pub async fn remove_answered<O: Owned>(tx: &mut WriteTx, id: Uuid) -> Result<(), DbError> {
    sqlx::query(O::REQUESTS.remove_answered)
        .bind(id.to_string())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes a request back; `false` if it has been answered meanwhile.
pub async fn withdraw<O: Owned>(tx: &mut WriteTx, id: Uuid) -> Result<bool, DbError> {
    let query = sqlx::query(O::REQUESTS.withdraw).bind(id.to_string());
    Ok(query.execute(tx.conn()).await?.rows_affected() == 1)
}

/// Deletes what was asked before `before`: nobody waits for an answer any more.
pub async fn forget<O: Owned>(tx: &mut WriteTx, before: Timestamp) -> Result<(), DbError> {
    sqlx::query(O::REQUESTS.forget)
        .bind(before.millis())
        .execute(tx.conn())
        .await?;
    Ok(())
}

fn decode<O: Owned>(row: &AnyRow) -> Result<PendingRequestOf<O>, DbError> {
    let cells = Cells::of(O::REQUESTS.table, row);
    let key = cells.parsed(O::REQUESTS.key)?;
    let found = match cells.text_opt("owner")? {
        Some(owner) => Some(ClaimRow {
            claim: Claim {
                key,
                fence: cells.int("fence")?,
            },
            owner,
        }),
        None => None,
    };
    Ok(PendingRequest {
        id: cells.parsed("id")?,
        key,
        request: cells.enum_value("request", O::Request::from_text)?,
        found,
    })
}
