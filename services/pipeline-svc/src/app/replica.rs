//! This process as one of several: that it is alive, which runs it takes, what it leaves behind.
//!
//! A replica is alive while its lease is renewed. Runs of a replica that is not are taken by others,
//! some at a time and as far as they have room; a run's fence keeps its former driver from writing.
//! What this costs depends on replicas and on what is taken, not on how many runs there are.

use std::time::Duration;

use ferroflow_db::lease::{self, Fence};
use ferroflow_types::error::chain;
use ferroflow_types::{Error, Timestamp};

use super::drive::{ANSWERS, RUNS};
use super::{Ctx, drive};
use crate::domain::request::Refusal;
use crate::store;
use crate::store::claims::{Claim, Found};
use crate::store::requests::Pending;

/// The lease of a replica that has been away for this long is forgotten.
const FORGET: Duration = Duration::from_hours(1);

/// Requests that are looked at at once.
const REQUESTS_MAX: i64 = 200;

/// This process.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    /// What nobody else is called. One that comes back under its name has its runs at once.
    pub id: String,
    /// Nobody else can use the database.
    pub alone: bool,
}

const PREFIX: &str = "replica/";

/// The lease by which a replica shows that it is alive.
pub(crate) fn lease_of(replica: &str) -> String {
    format!("{PREFIX}{replica}")
}

/// Runs that were taken.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub claims: Vec<Claim>,
    /// There may be more that nobody drives.
    pub more: bool,
}

/// Begins: from now on this replica is alive, and what it drove in a former life is to be taken
/// again, by it or by others.
pub(crate) async fn enter(ctx: &Ctx) -> Result<Option<Fence>, Error> {
    let mut tx = ctx.db.begin_write().await?;
    let (fence, released) = if ctx.replica.alone {
        (None, store::claims::release_all(&mut tx).await?)
    } else {
        let fence = beat(ctx, &mut tx).await?;
        (
            fence,
            store::claims::release(&mut tx, &ctx.replica.id).await?,
        )
    };
    if released > 0 {
        tracing::info!(runs = released, "taking up unfinished runs");
        tx.signal(RUNS);
    }
    tx.commit().await?;
    Ok(fence)
}

async fn beat(ctx: &Ctx, tx: &mut ferroflow_db::WriteTx) -> Result<Option<Fence>, Error> {
    let name = lease_of(&ctx.replica.id);
    let (now, holder) = (ctx.now(), &ctx.replica.id);
    Ok(lease::acquire(tx, &name, holder, now, lease::LENGTH).await?)
}

/// Shows that this replica is still alive. One that was thought dead begins again; what it has lost
/// meanwhile the fences of its runs say.
pub(crate) async fn renew(ctx: &Ctx, fence: Option<Fence>) -> Result<Option<Fence>, Error> {
    let mut tx = ctx.db.begin_write().await?;
    let name = lease_of(&ctx.replica.id);
    if let Some(fence) = fence
        && lease::renew(&mut tx, &name, fence, ctx.now(), lease::LENGTH)
            .await
            .is_ok()
    {
        tx.commit().await?;
        return Ok(Some(fence));
    }
    drop(tx);
    let mut tx = ctx.db.begin_write().await?;
    let fence = beat(ctx, &mut tx).await?;
    tx.commit().await?;
    Ok(fence)
}

/// Leaves: what this replica drives is anybody's from now on.
pub(crate) async fn leave(ctx: &Ctx) -> Result<u64, Error> {
    let mut tx = ctx.db.begin_write().await?;
    let released = store::claims::release(&mut tx, &ctx.replica.id).await?;
    // The lease's row stays: a run that was created in this moment is found by it.
    if let Some(fence) = beat(ctx, &mut tx).await?.filter(|_| !ctx.replica.alone) {
        lease::release(&mut tx, &lease_of(&ctx.replica.id), fence).await?;
    }
    tx.signal(RUNS);
    tx.commit().await?;
    Ok(released)
}

/// Takes runs that nobody drives, oldest first.
pub(crate) async fn take_new(ctx: &Ctx, limit: usize) -> Result<Taken, Error> {
    take_of(ctx, "", limit).await
}

/// Takes runs of replicas that are not alive.
pub(crate) async fn take_over(ctx: &Ctx, limit: usize) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    if ctx.replica.alone {
        return Ok(taken);
    }
    let now = ctx.now();
    let mut tx = ctx.db.begin_read().await?;
    let dead = lease::run_out(&mut tx, PREFIX, now).await?;
    drop(tx);
    for lease in dead {
        let Some(owner) = lease
            .strip_prefix(PREFIX)
            .filter(|id| *id != ctx.replica.id)
        else {
            continue;
        };
        let room = limit.saturating_sub(taken.claims.len());
        let found = match take_of(ctx, owner, room).await {
            Ok(found) => found,
            // What was taken before is ours all the same.
            Err(error) if !taken.claims.is_empty() => {
                let error = chain(&error);
                tracing::warn!(error, from = owner, "runs cannot be taken, trying again");
                taken.more = true;
                return Ok(taken);
            }
            Err(error) => return Err(error),
        };
        if !found.claims.is_empty() {
            let runs: Vec<_> = found
                .claims
                .iter()
                .map(|claim| claim.run.to_string())
                .collect();
            let runs = runs.join(" ");
            tracing::info!(
                from = owner,
                to = ctx.replica.id,
                count = found.claims.len(),
                runs,
                "took over the runs of a replica that is gone"
            );
            metrics::counter!("ferroflow_pipelines_runs_taken_over_total")
                .increment(u64::try_from(found.claims.len()).unwrap_or(0));
        }
        taken.more |= found.more;
        taken.claims.extend(found.claims);
    }
    Ok(taken)
}

/// Runs that are this replica's by the store.
pub(crate) async fn mine(ctx: &Ctx) -> Result<Vec<Claim>, Error> {
    let mut tx = ctx.db.begin_read().await?;
    // Somewhat more than the limit may be taken, and created.
    let limit = ctx.settings.active_runs_max.saturating_mul(2);
    let found = store::claims::of_owner(&mut tx, &ctx.replica.id, limit).await?;
    Ok(found.into_iter().map(|found| found.claim).collect())
}

async fn take_of(ctx: &Ctx, owner: &str, limit: usize) -> Result<Taken, Error> {
    // Most often there is nothing, and a transaction that reads says so.
    let mut tx = ctx.db.begin_read().await?;
    let found = store::claims::of_owner(&mut tx, owner, limit.saturating_add(1)).await?;
    drop(tx);
    let more = found.len() > limit;
    if found.is_empty() || limit == 0 {
        let claims = Vec::new();
        return Ok(Taken { claims, more });
    }
    let mut claims = Vec::new();
    let mut tx = ctx.db.begin_write().await?;
    for found in found.iter().take(limit) {
        claims.extend(store::claims::claim(&mut tx, found, &ctx.replica.id).await?);
    }
    tx.commit().await?;
    Ok(Taken { claims, more })
}

/// Forgets replicas that have been away for long, and answers that nobody came for.
pub(crate) async fn forget(ctx: &Ctx) -> Result<(), Error> {
    let before = ctx.now().millis() - i64::try_from(FORGET.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(before);
    let mut tx = ctx.db.begin_write().await?;
    for lease in lease::run_out(&mut tx, PREFIX, before).await? {
        let owner = lease.strip_prefix(PREFIX).unwrap_or_default();
        if store::claims::of_owner(&mut tx, owner, 1).await?.is_empty() {
            lease::forget(&mut tx, &lease, before).await?;
        }
    }
    store::requests::forget(&mut tx, before).await?;
    Ok(tx.commit().await?)
}

/// Requests that this replica is to answer, with the right to do so. Those about runs that are gone
/// are answered at once.
pub(crate) async fn requests(ctx: &Ctx) -> Result<Vec<(Pending, Claim)>, Error> {
    let mut tx = ctx.db.begin_read().await?;
    let pending = store::requests::pending(&mut tx, REQUESTS_MAX).await?;
    let mut ours = Vec::new();
    let mut others = Vec::new();
    for request in pending {
        match request.found.clone() {
            Some(found) if found.owner == ctx.replica.id => ours.push((request, found.claim)),
            Some(found) => {
                if !drive::is_driven_elsewhere(ctx, &mut tx, &found.owner).await? {
                    others.push((request, Some(found)));
                }
            }
            None => others.push((request, None)),
        }
    }
    drop(tx);
    for (request, found) in others {
        if let Some(claim) = adopt(ctx, &request, found).await? {
            ours.push((request, claim));
        }
    }
    Ok(ours)
}

/// Claims the run of a request, or says that there is none.
async fn adopt(ctx: &Ctx, request: &Pending, found: Option<Found>) -> Result<Option<Claim>, Error> {
    let mut tx = ctx.db.begin_write().await?;
    let claim = if let Some(found) = found {
        store::claims::claim(&mut tx, &found, &ctx.replica.id).await?
    } else {
        let answer = Err(Refusal::Missing);
        if store::requests::answer(&mut tx, request.id, answer, ctx.now()).await? {
            tx.signal(ANSWERS);
        }
        None
    };
    tx.commit().await?;
    Ok(claim)
}
