//! The actors that drive this replica's runs, as many at once as `active_runs` says; further runs stay
//! `PENDING`. `ferroflow_ownership` supervises them.

use std::sync::Arc;

use ferroflow_ownership::Factory;
use tokio::sync::Semaphore;

use crate::app::Ctx;
use crate::store::ownership::Claim;
use crate::workers::actor::Actor;

/// Makes the actors of runs, which share the slots for commands.
pub(crate) struct Actors {
    ctx: Arc<Ctx>,
    slots: Arc<Semaphore>,
}

impl Actors {
    pub(crate) fn new(ctx: Arc<Ctx>) -> Self {
        let slots = Arc::new(Semaphore::new(ctx.settings.parallel_tasks_max));
        Self { ctx, slots }
    }
}

impl Factory for Actors {
    type Actor = Actor;

    fn actor(&self, claim: Claim) -> Actor {
        Actor::new(Arc::clone(&self.ctx), claim, Arc::clone(&self.slots))
    }

    fn show(&self) {
        let free = u32::try_from(self.slots.available_permits()).unwrap_or(u32::MAX);
        metrics::gauge!("ferroflow_pipelines_task_slots_free").set(f64::from(free));
    }
}
