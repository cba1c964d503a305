//! What a replica drives: it takes objects that nobody drives and those of dead replicas, and gives
//! them back.
//!
//! Objects are taken some at a time and as far as there is room. What this costs depends on the number
//! of replicas and of what is taken, not on how many objects there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ferroflow_db::WriteTx;
use ferroflow_db::lease::Fence;
use ferroflow_types::Error;
use ferroflow_types::error::chain;
use ferroflow_types::id::IdSource;
use tokio::sync::mpsc;

use crate::message::{Command, Inbox, Message};
use crate::{Claim, Member, Owned, claim, request};

/// Messages that may wait for the supervisor. It only hands them on, so this is never long.
const MESSAGES_MAX: usize = 1024;

/// The objects of one kind, as far as this replica has to do with them.
pub struct Ownership<O: Owned> {
    pub(crate) member: Arc<Member>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) messages: mpsc::Sender<Message<O>>,
    /// Objects that are driven here at most.
    active_max: usize,
    /// Objects that are driven here or wait for it.
    load: AtomicUsize,
    /// There may be objects that nobody drives.
    backlog: AtomicBool,
    stopping: AtomicBool,
}

/// Objects that were taken.
#[derive(Debug)]
pub(crate) struct ClaimBatch<K> {
    pub(crate) claims: Vec<Claim<K>>,
    /// There may be more that nobody drives.
    pub(crate) has_more: bool,
}

impl<O: Owned> Ownership<O> {
    /// Of at most `active_max` objects at once; the inbox is the supervisor's.
    pub fn new(member: Arc<Member>, ids: Arc<dyn IdSource>, active_max: usize) -> (Self, Inbox<O>) {
        let (messages, inbox) = mpsc::channel(MESSAGES_MAX);
        let ownership = Self {
            member,
            ids,
            messages,
            active_max,
            load: AtomicUsize::new(0),
            backlog: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        };
        (ownership, Inbox(inbox))
    }

    /// This replica.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Begins: from now on this replica is alive, and what it drove before it was restarted is taken
    /// again, by it or by others.
    ///
    /// # Errors
    /// What the database says.
    pub async fn enter(&self) -> Result<Option<Fence>, Error> {
        let mut tx = self.member.db.begin_write().await?;
        // Alone, whatever has an owner was this replica's, under whichever id it ran then.
        let (fence, released) = if self.member.is_alone() {
            (None, claim::release_all::<O>(&mut tx).await?)
        } else {
            let fence = self.member.acquire_lease(&mut tx).await?;
            let released = claim::release::<O>(&mut tx, self.member.id()).await?;
            (fence, released)
        };
        if released > 0 {
            tracing::info!(count = released, "taking up unfinished {}", O::MANY);
            tx.signal(O::TOPICS.unowned);
        }
        tx.commit().await?;
        Ok(fence)
    }

    /// Leaves: what this replica drives is anybody's from now on; how many objects that were.
    pub(crate) async fn leave(&self) -> Result<u64, Error> {
        let mut tx = self.member.db.begin_write().await?;
        let released = claim::release::<O>(&mut tx, self.member.id()).await?;
        // In the transaction that gives the objects back: one that is made this replica's own
        // afterwards is found by the lease, which has run out.
        if !self.member.is_alone() {
            self.member.release_lease(&mut tx).await?;
        }
        tx.signal(O::TOPICS.unowned);
        tx.commit().await?;
        Ok(released)
    }

    /// Who is to be the owner of a new object: this replica if there is room and no older object waits
    /// for it, else nobody, which is the empty id.
    ///
    /// Insert the row with this owner and [`Claim::FIRST_FENCE`]. Then [`Ownership::wake`] the owner
    /// after the commit; if there is none, [`Ownership::signal_unowned`] in the transaction.
    pub fn owner_of_new(&self) -> &str {
        // With a backlog the object is nobody's, so that it is not driven before older ones.
        let has_capacity = !self.is_stopping()
            && !self.backlog.load(Ordering::Acquire)
            && self.load.load(Ordering::Acquire) < self.active_max;
        if has_capacity { self.member.id() } else { "" }
    }

    /// Has an object driven that is claimed here. If the process dies before that, it is found by its
    /// owner, which is this replica.
    pub async fn wake(&self, claim: Claim<O::Key>) {
        let message = Message {
            key: claim.key,
            claim: Some(claim),
            command: Command::Drive,
        };
        if self.messages.send(message).await.is_err() {
            tracing::debug!(key = %claim.key, "not woken: the service is stopping");
        }
    }

    /// Signals to all replicas that the transaction leaves an object without an owner.
    pub fn signal_unowned(&self, tx: &mut WriteTx) {
        self.note_backlog();
        tx.signal(O::TOPICS.unowned);
    }

    /// Notes that there may be objects that nobody drives.
    pub(crate) fn note_backlog(&self) {
        self.backlog.store(true, Ordering::Release);
    }

    pub(crate) fn has_backlog(&self) -> bool {
        self.backlog.load(Ordering::Acquire)
    }

    pub(crate) fn clear_backlog(&self) {
        self.backlog.store(false, Ordering::Release);
    }

    pub(crate) fn active_max(&self) -> usize {
        self.active_max
    }

    pub(crate) fn set_load(&self, load: usize) {
        self.load.store(load, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// No further object is taken.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Takes objects that nobody drives, in their order.
    pub(crate) async fn take_new(&self, limit: usize) -> Result<ClaimBatch<O::Key>, Error> {
        self.take_from("", limit).await
    }

    /// Takes objects of replicas that are not alive.
    pub(crate) async fn take_over(&self, limit: usize) -> Result<ClaimBatch<O::Key>, Error> {
        let (mut claims, mut has_more) = (Vec::new(), false);
        if self.member.is_alone() {
            return Ok(ClaimBatch { claims, has_more });
        }
        let mut tx = self.member.db.begin_read().await?;
        let dead = self.member.dead_replicas(&mut tx).await?;
        drop(tx);
        for owner in dead {
            // Without room nothing is taken, but it is known whether there is more.
            let free_slots = limit.saturating_sub(claims.len());
            let taken = match self.take_from(&owner, free_slots).await {
                Ok(taken) => taken,
                // What was taken before is ours all the same.
                Err(error) if !claims.is_empty() => {
                    let error = chain(&error);
                    let many = O::MANY;
                    tracing::warn!(error, from = owner, "{many} cannot be taken, trying again");
                    return Ok(ClaimBatch {
                        claims,
                        has_more: true,
                    });
                }
                Err(error) => return Err(error),
            };
            self.report_taken_over(&owner, &taken.claims);
            has_more |= taken.has_more;
            claims.extend(taken.claims);
        }
        Ok(ClaimBatch { claims, has_more })
    }

    fn report_taken_over(&self, from: &str, claims: &[Claim<O::Key>]) {
        if claims.is_empty() {
            return;
        }
        let keys: Vec<_> = claims.iter().map(|claim| claim.key.to_string()).collect();
        tracing::info!(
            from,
            to = self.member.id(),
            count = keys.len(),
            keys = keys.join(" "),
            "took over the {} of a replica that is gone",
            O::MANY
        );
        let count = u64::try_from(keys.len()).unwrap_or(0);
        metrics::counter!(O::METRICS.taken_over).increment(count);
    }

    /// Objects that are this replica's by the store.
    pub(crate) async fn own_claims(&self) -> Result<Vec<Claim<O::Key>>, Error> {
        let mut tx = self.member.db.begin_read().await?;
        // Somewhat more than the limit may be taken, and created.
        let limit = self.active_max.saturating_mul(2);
        let found = claim::of_owner::<O>(&mut tx, self.member.id(), limit).await?;
        Ok(found.into_iter().map(|found| found.claim).collect())
    }

    async fn take_from(&self, owner: &str, limit: usize) -> Result<ClaimBatch<O::Key>, Error> {
        // Most often there is nothing, and a transaction that reads says so.
        let mut tx = self.member.db.begin_read().await?;
        // One more than is taken tells whether there are more.
        let found = claim::of_owner::<O>(&mut tx, owner, limit.saturating_add(1)).await?;
        drop(tx);
        let has_more = found.len() > limit;
        let mut claims = Vec::new();
        if found.is_empty() || limit == 0 {
            return Ok(ClaimBatch { claims, has_more });
        }
        let mut tx = self.member.db.begin_write().await?;
        for found in found.iter().take(limit) {
            claims.extend(claim::claim::<O>(&mut tx, found, self.member.id()).await?);
        }
        tx.commit().await?;
        Ok(ClaimBatch { claims, has_more })
    }

    /// Deletes leases of replicas that have been away for long, and answers that nobody came for.
    ///
    /// Limit: one kind of owned object per database. A lease says nothing of the kind, and is deleted
    /// when its replica owns nothing of this one. With a second kind in the same database, what
    /// it still owns of that kind would never be taken over.
    pub(crate) async fn forget(&self) -> Result<(), Error> {
        let mut tx = self.member.db.begin_write().await?;
        let (dead, before) = self.member.long_dead_replicas(&mut tx).await?;
        for id in dead {
            if claim::of_owner::<O>(&mut tx, &id, 1).await?.is_empty() {
                self.member.forget(&mut tx, &id, before).await?;
            }
        }
        request::forget::<O>(&mut tx, before).await?;
        Ok(tx.commit().await?)
    }
}
