//! How many commands run at once where a runtime is.
//!
//! All services of a process have one runtime and take their slots from it: a machine does not get
//! larger when a second service starts commands on it.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of a runtime; clones are the same.
#[derive(Debug, Clone)]
pub struct Slots {
    free: Arc<Semaphore>,
    allowed: Arc<Mutex<usize>>,
}

/// The right to one command; given back when it is dropped.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Default for Slots {
    /// No slots, until a service says how many there may be.
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(0)),
            allowed: Arc::default(),
        }
    }
}

impl Slots {
    /// Sees to it that there are so many in all. Of several services, the one that allows most decides.
    pub fn allow(&self, count: usize) {
        let count = count.min(Semaphore::MAX_PERMITS);
        let mut allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        self.free.add_permits(count.saturating_sub(*allowed));
        *allowed = count.max(*allowed);
    }

    /// A slot, if one is free now.
    pub fn try_take(&self) -> Option<Slot> {
        let taken = Arc::clone(&self.free).try_acquire_owned();
        taken.ok().map(Slot)
    }

    /// Waits for a slot; who came first gets the next one, whichever service it is of.
    pub async fn take(&self) -> Slot {
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(permit) => Slot(permit),
            // Only a semaphore that is closed says so, and nobody closes this one.
            Err(_) => pending().await,
        }
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn services_of_a_process_share_them() {
        let slots = Slots::default();
        assert!(slots.try_take().is_none());
        let (pipelines, tuning) = (slots.clone(), slots.clone());
        pipelines.allow(2);
        tuning.allow(1);
        assert_eq!(slots.free(), 2, "the larger figure, not the sum");

        let one = pipelines.try_take().unwrap();
        let two = tuning.take().await;
        assert!(pipelines.try_take().is_none());
        let mut waiting = Box::pin(tuning.take());
        assert!(waiting.as_mut().now_or_never().is_none());

        drop(one);
        assert!(pipelines.try_take().is_none(), "somebody waits for it");
        let three = waiting.await;
        drop((two, three));
        assert_eq!(slots.free(), 2);
    }

    #[tokio::test]
    async fn a_service_that_allows_more_adds_what_is_missing() {
        let slots = Slots::default();
        slots.allow(1);
        let one = slots.take().await;
        slots.allow(3);
        assert_eq!(slots.free(), 2);
        slots.allow(usize::MAX);
        drop(one);
        assert_eq!(slots.free(), Semaphore::MAX_PERMITS);
    }
}
