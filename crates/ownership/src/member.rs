//! This replica among those of its service: its lease, and whether others are alive.
//!
//! A replica is alive while it renews the lease `replica/<id>`. What is judged is the lease alone, so a
//! replica that is slow may be taken for dead; the fences of what it drove keep it from writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferroflow_db::lease::{self, Fence};
use ferroflow_db::{Db, DbError, Read, WriteTx};
use ferroflow_types::error::chain;
use ferroflow_types::{Clock, Error, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The lease of a replica is called this and its id.
const LEASE_PREFIX: &str = "replica/";

/// The lease of a replica that has been away for this long is deleted.
const FORGET_AFTER: Duration = Duration::from_hours(1);

/// How long things take; tests take less.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How long a lease lasts.
    pub(crate) lease: Duration,
    /// How often it is renewed, and how often a supervisor looks for what no signal announced.
    pub(crate) renewal: Duration,
    /// How long one waits for a driver in another replica; by then what a dead one drove has been
    /// taken over.
    pub(crate) answer: Duration,
    /// The same while this replica stops.
    pub(crate) answer_while_stopping: Duration,
    /// How often an answer is looked for without a signal.
    pub(crate) poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: lease::LEASE_DURATION,
            renewal: lease::RENEW_INTERVAL,
            answer: Duration::from_secs(20),
            answer_while_stopping: Duration::from_secs(3),
            poll: Duration::from_millis(300),
        }
    }
}

/// This replica.
pub struct Member {
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timing: Timing,
    id: String,
    /// No other process can use the database.
    alone: bool,
    /// See [`Member::is_steady`].
    steady: AtomicBool,
}

impl Member {
    /// This replica, under an id that no other one has. A replica that comes back under its former id
    /// gets what it drove at once. Over SQLite it is alone, as no other process uses the database.
    pub fn new(db: Db, clock: Arc<dyn Clock>, id: String) -> Self {
        let alone = !db.is_postgres();
        Self {
            db,
            clock,
            timing: Timing::default(),
            id,
            alone,
            steady: AtomicBool::new(true),
        }
    }

    /// One of several even over SQLite, at a quicker pace.
    #[cfg(test)]
    pub(crate) fn of_several(db: Db, clock: Arc<dyn Clock>, id: &str, timing: Timing) -> Self {
        let id = id.to_owned();
        Self {
            timing,
            alone: false,
            ..Self::new(db, clock, id)
        }
    }

    /// Its id, which no other replica has.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether no other replica can use the database.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether this replica has renewed its lease without a gap for as long as a lease lasts. Nobody
    /// else is judged before: while the database was away, nobody could renew, and all get the chance
    /// to do so again.
    pub fn is_steady(&self) -> bool {
        self.steady.load(Ordering::Acquire)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn lease(&self) -> String {
        format!("{LEASE_PREFIX}{}", self.id)
    }

    /// Takes the lease, whatever it was before.
    pub(crate) async fn acquire_lease(&self, tx: &mut WriteTx) -> Result<Option<Fence>, DbError> {
        let (name, now) = (self.lease(), self.now());
        lease::acquire(tx, &name, &self.id, now, self.timing.lease).await
    }

    /// Gives the lease up; its row stays, so that what this replica is made the owner of in the same
    /// moment is found by it.
    pub(crate) async fn release_lease(&self, tx: &mut WriteTx) -> Result<(), DbError> {
        // The task that renews the lease knows its fence; taking the lease again gives one to release.
        if let Some(fence) = self.acquire_lease(tx).await? {
            lease::release(tx, &self.lease(), fence).await?;
        }
        Ok(())
    }

    /// Shows that this replica is still alive. One that was taken for dead begins again; what it has
    /// lost meanwhile the fences say.
    pub(crate) async fn renew(&self, fence: Option<Fence>) -> Result<Option<Fence>, Error> {
        let mut tx = self.db.begin_write().await?;
        let (name, length) = (self.lease(), self.timing.lease);
        if let Some(fence) = fence
            && lease::renew(&mut tx, &name, fence, self.now(), length)
                .await
                .is_ok()
        {
            tx.commit().await?;
            return Ok(Some(fence));
        }
        // A statement that failed has spoiled the transaction on PostgreSQL.
        drop(tx);
        let mut tx = self.db.begin_write().await?;
        let fence = self.acquire_lease(&mut tx).await?;
        tx.commit().await?;
        Ok(fence)
    }

    /// Whether another replica that is alive has this id.
    pub(crate) async fn is_other_alive(
        &self,
        tx: &mut impl Read,
        id: &str,
    ) -> Result<bool, DbError> {
        if id.is_empty() || id == self.id || self.alone {
            return Ok(false);
        }
        lease::is_held(tx, &format!("{LEASE_PREFIX}{id}"), self.now()).await
    }

    /// Ids of other replicas that are not alive.
    pub(crate) async fn dead_replicas(&self, tx: &mut impl Read) -> Result<Vec<String>, DbError> {
        let mut dead = expired_replicas(tx, self.now()).await?;
        dead.retain(|id| *id != self.id);
        Ok(dead)
    }

    /// Ids of replicas that have been away for long, and the time before which they were last alive.
    pub(crate) async fn long_dead_replicas(
        &self,
        tx: &mut impl Read,
    ) -> Result<(Vec<String>, Timestamp), DbError> {
        let long = i64::try_from(FORGET_AFTER.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(self.now().millis() - long);
        Ok((expired_replicas(tx, before).await?, before))
    }

    /// Deletes the lease of a replica that has been away since `before`.
    pub(crate) async fn forget(
        &self,
        tx: &mut WriteTx,
        id: &str,
        before: Timestamp,
    ) -> Result<(), DbError> {
        lease::delete_expired(tx, &format!("{LEASE_PREFIX}{id}"), before).await
    }

    /// Renews the lease until `stop`; `fence` is what [`crate::Ownership::enter`] returned. A replica
    /// that is alone has nobody to show it to, and only waits.
    ///
    /// # Errors
    /// None: a renewal that fails is tried again, and this replica is not steady until then.
    pub async fn keep_alive(
        self: Arc<Self>,
        mut fence: Option<Fence>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        if self.alone {
            stop.cancelled().await;
            return Ok(());
        }
        let Timing { lease, renewal, .. } = self.timing;
        let mut steady_since = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(renewal) => {}
            }
            let renewal_started = Instant::now();
            // After this time the lease has run out anyway.
            match tokio::time::timeout(lease, self.renew(fence)).await {
                // A slower renewal counts as a gap: the database was hardly there, so others may not
                // have renewed.
                Ok(Ok(renewed)) if renewal_started.elapsed() < lease / 2 => {
                    fence = renewed;
                    let since = *steady_since.get_or_insert(renewal_started);
                    if !self.is_steady() && since.elapsed() >= lease {
                        self.steady.store(true, Ordering::Release);
                    }
                    continue;
                }
                Ok(Ok(renewed)) => fence = renewed,
                Ok(Err(error)) => {
                    let error = chain(&error);
                    tracing::warn!(
                        error,
                        "the replica cannot show that it is alive, trying again"
                    );
                }
                Err(_) => tracing::warn!("the replica cannot show that it is alive in time"),
            }
            self.steady.store(false, Ordering::Release);
            steady_since = None;
        }
    }
}

/// Ids of replicas whose leases have run out by `now`, or were given back.
async fn expired_replicas(tx: &mut impl Read, now: Timestamp) -> Result<Vec<String>, DbError> {
    let leases = lease::expired(tx, LEASE_PREFIX, now).await?;
    let ids = leases
        .iter()
        .filter_map(|lease| lease.strip_prefix(LEASE_PREFIX));
    Ok(ids.map(str::to_owned).collect())
}
