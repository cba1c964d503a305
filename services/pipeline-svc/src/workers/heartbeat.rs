//! Shows that this replica is alive, and whether it has been well enough to judge others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferroflow_db::lease::{Fence, LENGTH, RENEWAL};
use ferroflow_types::Error;
use ferroflow_types::error::chain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::{Ctx, replica};

/// Whether this replica has been heard of without a gap for as long as a lease lasts. After a time
/// when the database was away for everybody, others get the chance to be heard of again.
#[derive(Debug, Clone)]
pub(crate) struct Steady(Arc<AtomicBool>);

impl Steady {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(crate) fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Renews the replica's lease until `stop`.
pub(crate) async fn beat_until(
    ctx: Arc<Ctx>,
    mut fence: Option<Fence>,
    steady: Steady,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut well_since = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(RENEWAL) => {}
        }
        let asked = Instant::now();
        let renewed = tokio::time::timeout(LENGTH, replica::renew(&ctx, fence)).await;
        match renewed {
            Ok(Ok(renewed)) if asked.elapsed() < LENGTH / 2 => {
                fence = renewed;
                let since = *well_since.get_or_insert(asked);
                if !steady.is() && since.elapsed() >= LENGTH {
                    steady.0.store(true, Ordering::Release);
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
        steady.0.store(false, Ordering::Release);
        well_since = None;
    }
}
