//! Leases: the right to act for a while, with a fencing number.
//!
//! A holder that was slow may think that it still holds what somebody else has taken. So whatever
//! it writes on the strength of a lease goes through [`guard`] in the same transaction: the fence
//! rises with every holder, and a stale one writes nothing. Times are the caller's; replicas whose
//! clocks differ by less than a lease's length at worst wait longer, because the fence decides and
//! not the clock.

use std::time::Duration;

use ferroflow_types::Timestamp;
use sqlx::Row as _;

use crate::{DbError, Read, WriteTx};

/// How long a lease lasts unless it is renewed.
pub const LEASE_DURATION: Duration = Duration::from_secs(5);

/// How often it is renewed: two renewals may fail before it is lost.
pub const RENEW_INTERVAL: Duration = Duration::from_millis(1500);

/// The number of a holding; every later holder of the same lease has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(i64);

impl Fence {
    /// The number.
    pub const fn number(self) -> i64 {
        self.0
    }
}

/// Takes the lease called `name` if it is free, has run out, or is this holder's already (from
/// before it was restarted); `None` when another one has it.
pub async fn acquire(
    tx: &mut WriteTx,
    name: &str,
    holder: &str,
    now: Timestamp,
    duration: Duration,
) -> Result<Option<Fence>, DbError> {
    let inserted = sqlx::query(
        "INSERT INTO leases (name, holder, fence, expires_at) VALUES ($1, $2, 1, $3) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(holder)
    .bind(now.plus(duration).millis())
    .execute(tx.conn())
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Some(Fence(1)));
    }
    let updated = sqlx::query(
        "UPDATE leases SET holder = $1, fence = fence + 1, expires_at = $2 \
         WHERE name = $3 AND (expires_at <= $4 OR holder = $1) RETURNING fence",
    )
    .bind(holder)
    .bind(now.plus(duration).millis())
    .bind(name)
    .bind(now.millis())
    .fetch_optional(tx.conn())
    .await?;
    updated
        .map(|row| Ok(Fence(row.try_get("fence")?)))
        .transpose()
}

/// Holds on to the lease.
///
/// # Errors
/// [`DbError::Conflict`] when it is somebody else's by now: stop what it was held for.
pub async fn renew(
    tx: &mut WriteTx,
    name: &str,
    fence: Fence,
    now: Timestamp,
    duration: Duration,
) -> Result<(), DbError> {
    let result = sqlx::query("UPDATE leases SET expires_at = $1 WHERE name = $2 AND fence = $3")
        .bind(now.plus(duration).millis())
        .bind(name)
        .bind(fence.0)
        .execute(tx.conn())
        .await?;
    crate::ensure_one(&result, "leases")
}

/// Makes the rest of the transaction depend on the lease: nobody can take it before the
/// transaction ends.
///
/// # Errors
/// [`DbError::Conflict`] when it is somebody else's by now: roll back.
pub async fn guard(tx: &mut WriteTx, name: &str, fence: Fence) -> Result<(), DbError> {
    // A write and not a read, because it locks the row on PostgreSQL.
    let result = sqlx::query("UPDATE leases SET fence = fence WHERE name = $1 AND fence = $2")
        .bind(name)
        .bind(fence.0)
        .execute(tx.conn())
        .await?;
    crate::ensure_one(&result, "leases")
}

/// Gives the lease back, so that the next holder need not wait until it runs out. Does nothing if
/// it is somebody else's by now.
pub async fn release(tx: &mut WriteTx, name: &str, fence: Fence) -> Result<(), DbError> {
    sqlx::query("UPDATE leases SET expires_at = 0, holder = '' WHERE name = $1 AND fence = $2")
        .bind(name)
        .bind(fence.0)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Whether somebody has the lease.
pub async fn is_held(tx: &mut impl Read, name: &str, now: Timestamp) -> Result<bool, DbError> {
    let held = sqlx::query("SELECT fence FROM leases WHERE name = $1 AND expires_at > $2")
        .bind(name)
        .bind(now.millis())
        .fetch_optional(tx.conn())
        .await?;
    Ok(held.is_some())
}

/// Leases whose name begins with `prefix`, which has no `%` and `_`, and which have run out or were given back.
pub async fn expired(
    tx: &mut impl Read,
    prefix: &str,
    now: Timestamp,
) -> Result<Vec<String>, DbError> {
    let rows = sqlx::query(
        "SELECT name FROM leases WHERE name LIKE $1 AND expires_at <= $2 ORDER BY name",
    )
    .bind(format!("{prefix}%"))
    .bind(now.millis())
    .fetch_all(tx.conn())
    .await?;
    rows.iter().map(|row| Ok(row.try_get("name")?)).collect()
}

/// Forgets a lease that ran out before `before`. Only for names that nobody will take again: the
/// fence begins anew.
pub async fn delete_expired(
    tx: &mut WriteTx,
    name: &str,
    before: Timestamp,
) -> Result<(), DbError> {
    sqlx::query("DELETE FROM leases WHERE name = $1 AND expires_at < $2")
        .bind(name)
        .bind(before.millis())
        .execute(tx.conn())
        .await?;
    Ok(())
}
