//! Work that is done again and again: a tick, then a wait until there may be more to do.
//!
//! One tick does what there is to do and says when to look again. What fails is tried again, each time
//! after a longer wait. A stop is looked at between ticks. What must not be cut in the middle is a
//! transaction: a tick under a lease is dropped when the lease is lost.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use ferroflow_types::error::chain;
use tokio_util::sync::CancellationToken;

/// The wait after a first failure.
const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// The longest wait after failures: what comes back is used again this soon.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// After so many failures in a row it is no passing trouble.
const FAILURES_BEFORE_ERROR: u32 = 5;

/// When a worker is to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextTick {
    /// At once: there is more.
    Now,
    /// After this time, or when [`Worker::wake`] returns.
    After(Duration),
}

/// What is done again and again.
pub trait Worker: Send {
    /// Its name in logs and metrics.
    fn name(&self) -> &str;

    /// Why a tick fails.
    type Error: std::error::Error + Send;

    /// Does what there is to do now.
    fn tick(&mut self) -> impl Future<Output = Result<NextTick, Self::Error>> + Send;

    /// Returns when there may be something to do before it is time. What happens between two calls must
    /// not be missed: a subscription belongs in the worker.
    fn wake(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Works until `stop`.
pub async fn run_until_stopped<W: Worker>(mut worker: W, stop: &CancellationToken) {
    let mut failures = 0;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let done = worker.tick().await;
        observe(worker.name(), begun.elapsed(), done.is_ok());
        match done {
            Ok(NextTick::Now) => failures = 0,
            Ok(NextTick::After(wait)) => {
                failures = 0;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = worker.wake() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
            Err(error) => {
                let (name, error) = (worker.name(), chain(&error));
                let wait = backoff(failures);
                failures += 1;
                if failures < FAILURES_BEFORE_ERROR {
                    tracing::warn!(
                        worker = name,
                        error,
                        failures,
                        ?wait,
                        "failed, trying again"
                    );
                } else {
                    tracing::error!(
                        worker = name,
                        error,
                        failures,
                        ?wait,
                        "still fails, trying again"
                    );
                }
                // `wake` is not asked: a source that wakes often would have failures tried without
                // a pause.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

/// The wait after so many earlier failures in a row.
pub(crate) fn backoff(failures: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failures);
    BACKOFF_MIN.saturating_mul(factor).min(BACKOFF_MAX)
}

fn observe(worker: &str, duration: Duration, is_done: bool) {
    let result = if is_done { "done" } else { "failed" };
    let labels = [("worker", worker.to_owned()), ("result", result.to_owned())];
    metrics::counter!("ferroflow_worker_ticks_total", &labels).increment(1);
    let labels = [("worker", worker.to_owned())];
    metrics::histogram!("ferroflow_worker_tick_seconds", &labels).record(duration.as_secs_f64());
}
