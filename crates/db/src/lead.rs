//! Work that one process at a time does: whoever holds its lease.
//!
//! The lease is renewed beside the work. Whoever loses it stops; what it still writes goes through
//! [`Leadership::guard`], so that a holder that was slow writes nothing after its successor began.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_types::time::SystemClock;
use ferroflow_types::{Clock as _, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::lease::{self, Fence, LEASE_DURATION, RENEW_INTERVAL};
use crate::signal::LEASES;
use crate::{Db, DbError, WriteTx};

/// The right to do the work, for as long as it lasts.
#[derive(Debug, Clone)]
pub struct Leadership {
    name: Arc<str>,
    fence: Fence,
    /// Cancelled when the work is to stop.
    pub stop: CancellationToken,
}

impl Leadership {
    /// Makes the rest of the transaction depend on the lease; it must be in the lease's database.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when it is somebody else's by now.
    pub async fn guard(&self, tx: &mut WriteTx) -> Result<(), DbError> {
        lease::guard(tx, &self.name, self.fence).await
    }
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// How long a lease of this kind of database lasts, and how often it is renewed.
#[derive(Debug, Clone, Copy)]
struct LeaseTiming {
    duration: Duration,
    renew_interval: Duration,
}

impl LeaseTiming {
    fn of(db: &Db) -> Self {
        let (mut duration, mut renew_interval) = (LEASE_DURATION, RENEW_INTERVAL);
        if !db.is_postgres() {
            // Each renewal is a write to the disk of a machine that may have nothing else to do. Who
            // takes over after a crash is usually the same holder, which need not wait.
            (duration, renew_interval) = (duration * 2, renew_interval * 2);
        }
        Self {
            duration,
            renew_interval,
        }
    }
}

/// Does `work` whenever this process holds the lease called `name`, until `stop`.
///
/// `holder` names who asks. A holder is given its own lease at once, as after a crash it need not
/// wait for itself; so no two that run at the same time may have the same name.
///
/// # Errors
/// What the work says when it fails.
pub async fn run_as_leader<W, F, E>(
    db: Db,
    name: &str,
    holder: &str,
    stop: CancellationToken,
    mut work: W,
) -> Result<(), E>
where
    W: FnMut(Leadership) -> F,
    F: Future<Output = Result<(), E>>,
{
    let timing = LeaseTiming::of(&db);
    loop {
        let fence = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            fence = wait_for_lease(&db, name, holder, timing) => fence,
        };
        tracing::info!(
            lease = name,
            holder,
            fence = fence.number(),
            "holds a lease"
        );
        let lead = Leadership {
            name: name.into(),
            fence,
            stop: stop.clone(),
        };
        let ended = tokio::select! {
            ended = work(lead) => ended,
            () = renew_until_lost(&db, name, fence, timing) => {
                tracing::warn!(lease = name, holder, "lost a lease: another replica goes on");
                continue;
            }
        };
        if let Err(error) = release(&db, name, fence).await {
            tracing::warn!(lease = name, %error, "a lease runs out instead of being given back");
        }
        return ended;
    }
}

/// Waits until the lease is ours.
async fn wait_for_lease(db: &Db, name: &str, holder: &str, timing: LeaseTiming) -> Fence {
    let mut released = db.signals().subscribe(LEASES);
    loop {
        match try_acquire(db, name, holder, timing).await {
            Ok(Some(fence)) => return fence,
            Ok(None) => {}
            Err(error) => tracing::debug!(lease = name, %error, "a lease cannot be asked for"),
        }
        tokio::select! {
            () = released.changed() => {}
            () = tokio::time::sleep(RENEW_INTERVAL) => {}
        }
    }
}

async fn try_acquire(
    db: &Db,
    name: &str,
    holder: &str,
    timing: LeaseTiming,
) -> Result<Option<Fence>, DbError> {
    let mut tx = db.begin_write().await?;
    let fence = lease::acquire(&mut tx, name, holder, now(), timing.duration).await?;
    tx.commit().await?;
    Ok(fence)
}

/// Renews the lease until it is lost.
async fn renew_until_lost(db: &Db, name: &str, fence: Fence, timing: LeaseTiming) {
    let LeaseTiming {
        duration,
        renew_interval,
    } = timing;
    let mut renewed_at = Instant::now();
    loop {
        tokio::time::sleep(renew_interval).await;
        let requested_at = Instant::now();
        // An answer that comes too late is none.
        let left = duration.saturating_sub(renewed_at.elapsed());
        let renewing = renew(db, name, fence, duration);
        match tokio::time::timeout(left.max(Duration::from_millis(1)), renewing).await {
            Ok(Ok(())) => renewed_at = requested_at,
            Ok(Err(DbError::Conflict { .. })) => return,
            Ok(Err(error)) => tracing::debug!(lease = name, %error, "a lease cannot be renewed"),
            Err(_) => {}
        }
        if renewed_at.elapsed() >= duration {
            return;
        }
    }
}

async fn renew(db: &Db, name: &str, fence: Fence, duration: Duration) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    lease::renew(&mut tx, name, fence, now(), duration).await?;
    tx.commit().await
}

async fn release(db: &Db, name: &str, fence: Fence) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    lease::release(&mut tx, name, fence).await?;
    tx.signal(LEASES);
    tx.commit().await
}
