//! Fires recurring runs when they are due. One replica does it at a time; it is woken by the next
//! due time, by changes of schedules and by the ends of their runs.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_db::lead::Leadership;
use ferroflow_db::signal::Subscription;
use ferroflow_service::worker::{NextTick, Worker, run_until_stopped};
use ferroflow_types::Error;
use ferroflow_types::error::chain;
use futures::StreamExt as _;

use super::AllNamespaces;
use crate::app::Ctx;
use crate::app::schedules::{self, DueSince};

/// The lease of the replica that does it.
pub(crate) const LEASE: &str = "schedules";

/// Schedules that are dealt with at once; each waits for the database most of the time.
const CONCURRENCY: usize = 8;

/// The longest wait: a clock that is set forward wakes nobody, and a signal may be lost.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The wait when nothing comes of what is due: it failed, or the clock was put back meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Fires schedules for as long as this replica leads.
pub(crate) async fn fire_while_leading(ctx: Arc<Ctx>, lead: Leadership) -> Result<(), Error> {
    // The lease saves work only, so nothing is written under its fence: the lock of a schedule's row
    // keeps two replicas that both lead for a moment from making a run twice.
    let worker = ScheduleWorker {
        // Before the first look, so that no change after it is missed.
        changes: ctx.db.signals().subscribe(schedules::SCHEDULES),
        is_refreshed: false,
        ctx,
    };
    run_until_stopped(worker, &lead.stop).await;
    Ok(())
}

struct ScheduleWorker {
    ctx: Arc<Ctx>,
    changes: Subscription,
    /// Whether due times are what this release makes of the schedules.
    is_refreshed: bool,
}

impl Worker for ScheduleWorker {
    type Error = Error;

    fn name(&self) -> &str {
        LEASE
    }

    async fn tick(&mut self) -> Result<NextTick, Error> {
        if !self.is_refreshed {
            schedules::refresh(&self.ctx, &AllNamespaces(())).await?;
            self.is_refreshed = true;
        }
        fire_due(&self.ctx).await.map(NextTick::After)
    }

    async fn wake(&mut self) {
        self.changes.changed().await;
    }
}

/// Fires what is due; how long to wait for the next.
async fn fire_due(ctx: &Ctx) -> Result<Duration, Error> {
    loop {
        let (mut made, mut last) = (0, None);
        // All pages, whatever comes of each schedule: those that keep failing are the oldest and
        // would otherwise hold up all others.
        loop {
            let due = schedules::due(ctx, &AllNamespaces(()), last).await?;
            let Some(&end) = due.last() else { break };
            last = Some(end);
            made += fire_each(ctx, due).await;
        }
        if last.is_none() {
            let next = schedules::next_due(ctx).await?;
            return Ok(next.map_or(MAX_WAIT, |next| next.since(ctx.now()).min(MAX_WAIT)));
        }
        if made == 0 {
            return Ok(RETRY_INTERVAL);
        }
    }
}

/// Fires each of these; how many runs were made.
async fn fire_each(ctx: &Ctx, due: Vec<DueSince>) -> usize {
    let fired: Vec<_> = futures::stream::iter(due)
        .map(|due| async move {
            (
                due.id,
                schedules::fire(ctx, &AllNamespaces(()), due.id).await,
            )
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    let mut made = 0;
    for (id, fired) in fired {
        match fired {
            Ok(count) => made += count,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(recurring_run = %id, error, "a schedule cannot fire, trying again");
            }
        }
    }
    made
}
