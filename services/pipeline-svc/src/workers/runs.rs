//! The actors that drive this replica's runs, as many at once as `active_runs` says; further runs stay
//! `PENDING`. `ferroflow_ownership` supervises them.

use std::sync::Arc;

use ferroflow_ownership::Factory;

use crate::app::Ctx;
use crate::store::ownership::Claim;
use crate::workers::actor::Actor;

/// Makes the actors of runs.
pub(crate) struct ActorFactory {
    pub(crate) ctx: Arc<Ctx>,
}

impl Factory for ActorFactory {
    type Actor = Actor;

    fn actor(&self, claim: Claim) -> Actor {
        Actor::new(Arc::clone(&self.ctx), claim)
    }

    fn update_gauges(&self) {
        let free = u32::try_from(self.ctx.runtime.slots().free()).unwrap_or(u32::MAX);
        metrics::gauge!("ferroflow_pipelines_task_slots_free").set(f64::from(free));
    }
}
