//! The right to drive an object: the columns `owner` and `fence` of its row.

use ferroflow_db::row::Cells;
use ferroflow_db::{DbError, Read, WriteTx};
use sqlx::any::AnyRow;

use crate::Owned;

/// The right to drive an object. It is lost when the object's fence has moved on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<K> {
    /// The object.
    pub key: K,
    /// The fence under which it is driven.
    pub fence: i64,
}

impl<K> Claim<K> {
    /// The fence of an object that its creator drives.
    pub const FIRST_FENCE: i64 = 1;

    /// The claim of the replica that inserted the row with itself as the owner.
    pub const fn first(key: K) -> Self {
        let fence = Self::FIRST_FENCE;
        Self { key, fence }
    }
}

/// An object and its owner, as they are in the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRow<K> {
    /// The object and its fence at that moment.
    pub claim: Claim<K>,
    /// The replica that drives it, empty for none.
    pub owner: String,
}

/// Who drives the object, if there is one of this key.
pub async fn find<O: Owned>(
    tx: &mut impl Read,
    key: O::Key,
) -> Result<Option<ClaimRow<O::Key>>, DbError> {
    let row = sqlx::query(O::CLAIMS.find)
        .bind(key.to_string())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(decode::<O>).transpose()
}

/// Objects that need a driver and are this replica's, or nobody's when it is empty.
pub async fn of_owner<O: Owned>(
    tx: &mut impl Read,
    owner: &str,
    limit: usize,
) -> Result<Vec<ClaimRow<O::Key>>, DbError> {
    let rows = sqlx::query(O::CLAIMS.of_owner)
        .bind(owner)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(tx.conn())
        .await?;
    rows.iter().map(decode::<O>).collect()
}

/// Takes an object as it was found; `None` when another one was faster.
pub async fn claim<O: Owned>(
    tx: &mut WriteTx,
    found: &ClaimRow<O::Key>,
    owner: &str,
) -> Result<Option<Claim<O::Key>>, DbError> {
    let Claim { key, fence } = found.claim;
    let result = sqlx::query(O::CLAIMS.claim)
        .bind(owner)
        .bind(key.to_string())
        .bind(&found.owner)
        .bind(fence)
        .execute(tx.conn())
        .await?;
    // The statement raises it in the row, on the condition that owner and fence are as they were found.
    let fence = fence + 1;
    Ok((result.rows_affected() == 1).then_some(Claim { key, fence }))
}

/// Gives back every object of this replica that needs a driver; how many there were.
pub async fn release<O: Owned>(tx: &mut WriteTx, owner: &str) -> Result<u64, DbError> {
    let query = sqlx::query(O::CLAIMS.release).bind(owner);
    Ok(query.execute(tx.conn()).await?.rows_affected())
}

/// Gives back every object that needs a driver, whoever had it: for a replica that is alone.
pub async fn release_all<O: Owned>(tx: &mut WriteTx) -> Result<u64, DbError> {
    let query = sqlx::query(O::CLAIMS.release_all);
    Ok(query.execute(tx.conn()).await?.rows_affected())
}

fn decode<O: Owned>(row: &AnyRow) -> Result<ClaimRow<O::Key>, DbError> {
    let cells = Cells::of(O::CLAIMS.table, row);
    Ok(ClaimRow {
        claim: Claim {
            key: cells.parsed("id")?,
            fence: cells.int("fence")?,
        },
        owner: cells.text("owner")?,
    })
}
