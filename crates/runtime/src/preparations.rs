//! What comes before a command, in the background: content is copied, an environment is built, an
//! image pulled.
//!
//! `ensure` begins it and returns, however long it takes; `observe` waits for it before it looks at
//! what there is. It ends with the runtime. After that, or after a crash, the next `ensure` begins it
//! anew: what was done is found in the attempt's folder.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferroflow_launcher::AttemptKey;
use ferroflow_types::error::chain;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::RuntimeError;

/// How a preparation ended; nothing while it goes on.
type Ended = Option<Result<(), Problem>>;
type UnderWay = HashMap<AttemptKey, watch::Receiver<Ended>>;

/// The preparations of a runtime.
#[derive(Default)]
pub(crate) struct Preparations {
    /// Those that go on, and those that could not be ended well and that nobody has heard of.
    all: Arc<Mutex<UnderWay>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A [`RuntimeError`], for all who wait.
#[derive(Debug, Clone)]
struct Problem {
    away: bool,
    what: &'static str,
    kind: io::ErrorKind,
    said: String,
}

impl Problem {
    fn of(error: RuntimeError) -> Self {
        let (away, what, source) = match error {
            RuntimeError::Io { what, source, .. } => (false, what, source),
            RuntimeError::Away { what, source, .. } => (true, what, source),
            unknown @ RuntimeError::Unknown(_) => (false, "prepare it", io::Error::other(unknown)),
        };
        Self {
            away,
            what,
            kind: source.kind(),
            said: chain(&source),
        }
    }

    fn error(self, key: &AttemptKey) -> RuntimeError {
        let (key, what) = (key.clone(), self.what);
        let source = io::Error::new(self.kind, self.said);
        if self.away {
            RuntimeError::Away { key, what, source }
        } else {
            RuntimeError::Io { key, what, source }
        }
    }
}

impl Preparations {
    /// Begins `work` for an attempt unless some is under way.
    pub(crate) fn begin(
        &self,
        key: &AttemptKey,
        work: impl Future<Output = Result<(), RuntimeError>> + Send + 'static,
    ) {
        let mut all = lock(&self.all);
        // The sender of one that panicked is gone.
        let goes_on = |ended: &watch::Receiver<Ended>| {
            ended.has_changed().is_ok() && ended.borrow().is_none()
        };
        if all.get(key).is_some_and(goes_on) {
            return;
        }
        let (tell, ended) = watch::channel(None);
        all.insert(key.clone(), ended);
        drop(all);
        let (key, all) = (key.clone(), Arc::clone(&self.all));
        let work = async move {
            let result = work.await.map_err(Problem::of);
            if result.is_ok() {
                // Who comes now finds what it left.
                lock(&all).remove(&key);
            }
            tell.send_replace(Some(result));
        };
        let mut tasks = lock(&self.tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a preparation did not end by itself");
            }
        }
        tasks.spawn(work.in_current_span());
    }

    /// Returns when nothing is under way for the attempt.
    ///
    /// # Errors
    /// What kept it from being prepared, told once: to begin again helps if that has gone.
    pub(crate) async fn wait(&self, key: &AttemptKey) -> Result<(), RuntimeError> {
        let found = lock(&self.all).get(key).cloned();
        let Some(mut ended) = found else {
            return Ok(());
        };
        let result = match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            // It panicked; the attempt is judged by what is there.
            Err(_) => None,
        };
        let Some(Err(problem)) = result else {
            return Ok(());
        };
        let mut all = lock(&self.all);
        // Somebody may have begun it again meanwhile.
        if all.get(key).is_some_and(|known| known.same_channel(&ended)) {
            all.remove(key);
        }
        Err(problem.error(key))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;
    use crate::tests::key;

    fn away(key: &AttemptKey) -> RuntimeError {
        RuntimeError::Away {
            key: key.clone(),
            what: "bring its inputs",
            source: io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        }
    }

    #[tokio::test]
    async fn it_is_begun_once_and_waited_for() {
        let (all, key) = (Preparations::default(), key("a", 1));
        let begun = Arc::new(AtomicUsize::new(0));
        let (go, told) = oneshot::channel::<()>();
        let count = Arc::clone(&begun);
        all.begin(&key, async move {
            count.fetch_add(1, Ordering::Relaxed);
            told.await.map_err(io::Error::other).unwrap();
            Ok(())
        });
        let count = Arc::clone(&begun);
        all.begin(&key, async move {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        let mut waits = Box::pin(all.wait(&key));
        tokio::task::yield_now().await;
        assert!(waits.as_mut().now_or_never().is_none());

        go.send(()).unwrap();
        waits.await.unwrap();

        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert!(lock(&all.all).is_empty());
        all.wait(&key).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_in_the_way_is_told_to_all_who_wait_and_may_go() {
        let (all, key) = (Preparations::default(), key("a", 1));
        let error = away(&key);
        all.begin(&key, async move { Err(error) });

        let both = futures::future::join(all.wait(&key), all.wait(&key)).await;

        for told in [both.0, both.1] {
            let told = told.unwrap_err();
            assert!(matches!(told, RuntimeError::Away { .. }), "{told:?}");
            assert_eq!(chain(&told), chain(&away(&key)));
        }
        all.begin(&key, async { Ok(()) });
        all.wait(&key).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_failed_is_begun_anew_though_nobody_waited() {
        let (all, key) = (Preparations::default(), key("a", 1));
        let error = away(&key);
        all.begin(&key, async move { Err(error) });
        tokio::task::yield_now().await;

        all.begin(&key, async { Ok(()) });

        all.wait(&key).await.unwrap();
    }

    #[tokio::test]
    async fn it_ends_with_its_runtime() {
        let (all, key) = (Preparations::default(), key("a", 1));
        let (held, ends) = oneshot::channel::<()>();
        all.begin(&key, async move {
            let _held = held;
            std::future::pending().await
        });
        tokio::task::yield_now().await;
        drop(all);
        assert!(ends.await.is_err(), "the work is dropped");
    }
}
