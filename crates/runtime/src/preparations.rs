//! What comes before a command, in the background: content is copied, an environment is built, an
//! image pulled.
//!
//! `ensure` begins it and returns, however long it takes; `observe` waits for it before it looks at
//! what there is. It ends with the runtime. After that, or after a crash, the next `ensure` begins it
//! anew: what was done is found in the attempt's folder.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferroflow_launcher::{AttemptKey, OwnerKey};
use ferroflow_types::error::chain;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument as _;

use crate::RuntimeError;

/// How a preparation ended; nothing while it goes on.
type Ended = Option<Result<(), SharedError>>;

/// One preparation.
struct Preparation {
    ended: watch::Receiver<Ended>,
    abort: AbortHandle,
}

type PreparationsByKey = HashMap<AttemptKey, Preparation>;

/// The preparations of a runtime.
#[derive(Default)]
pub(crate) struct Preparations {
    /// Those that go on, and those that failed until somebody is told of it.
    all: Arc<Mutex<PreparationsByKey>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A [`RuntimeError`] for all who wait; an I/O error cannot be cloned.
#[derive(Debug, Clone)]
struct SharedError {
    unavailable: bool,
    what: &'static str,
    kind: io::ErrorKind,
    message: String,
}

impl SharedError {
    fn of(error: RuntimeError) -> Self {
        let (unavailable, what, source) = match error {
            RuntimeError::Io { what, source, .. } => (false, what, source),
            RuntimeError::Unavailable { what, source, .. } => (true, what, source),
            unknown @ RuntimeError::Unknown(_) => (false, "prepare it", io::Error::other(unknown)),
        };
        Self {
            unavailable,
            what,
            kind: source.kind(),
            message: chain(&source),
        }
    }

    fn into_runtime_error(self, key: &AttemptKey) -> RuntimeError {
        let (key, what) = (key.clone(), self.what);
        let source = io::Error::new(self.kind, self.message);
        if self.unavailable {
            RuntimeError::Unavailable { key, what, source }
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
        // After a panic the sender is gone, and has told nothing.
        let is_running = |known: &Preparation| {
            known.ended.has_changed().is_ok() && known.ended.borrow().is_none()
        };
        if all.get(key).is_some_and(is_running) {
            return;
        }
        let (sender, ended) = watch::channel(None);
        let (attempt_key, entries) = (key.clone(), Arc::clone(&self.all));
        let work = async move {
            let result = work.await.map_err(SharedError::of);
            if result.is_ok() {
                // Whoever asks from now on finds what it left in the attempt's folder.
                lock(&entries).remove(&attempt_key);
            }
            sender.send_replace(Some(result));
        };
        let mut tasks = lock(&self.tasks);
        while let Some(ended) = tasks.try_join_next() {
            match ended {
                Err(error) if !error.is_cancelled() => {
                    tracing::error!(%error, "a preparation panicked");
                }
                // Those of deleted owners are cancelled.
                Ok(()) | Err(_) => {}
            }
        }
        // The task may end at once and remove its entry: it waits for `all`, which is held until
        // there is one.
        let abort = tasks.spawn(work.in_current_span());
        all.insert(key.clone(), Preparation { ended, abort });
    }

    /// Ends what is under way for an owner, and forgets what was in the way of the rest.
    pub(crate) async fn forget(&self, owner: &OwnerKey) {
        let of_owner = |key: &AttemptKey| key.owner == *owner;
        let gone: Vec<_> = lock(&self.all)
            .extract_if(|key, _| of_owner(key))
            .map(|(_, preparation)| preparation)
            .collect();
        for mut preparation in gone {
            // Waited for, so that nothing of it is at work in the folders that are removed next.
            preparation.abort.abort();
            // An error means that it was aborted before it told anything.
            let _ended = preparation.ended.wait_for(Option::is_some).await.is_ok();
        }
    }

    /// Returns when nothing is under way for the attempt.
    ///
    /// # Errors
    /// What kept it from being prepared, told once: to begin again helps if that has gone.
    pub(crate) async fn wait(&self, key: &AttemptKey) -> Result<(), RuntimeError> {
        let found = lock(&self.all).get(key).map(|known| known.ended.clone());
        let Some(mut ended) = found else {
            return Ok(());
        };
        let result = ended
            .wait_for(Option::is_some)
            .await
            .map(|ended| ended.clone());
        if let Ok(Some(Ok(()))) = result {
            return Ok(());
        }
        let mut all = lock(&self.all);
        // The entry is another one if it was begun again meanwhile, and gone if its owner was
        // deleted.
        let known = all.get(key).map(|known| known.ended.same_channel(&ended));
        if known == Some(true) {
            all.remove(key);
        }
        match (result, known) {
            (Ok(Some(Err(problem))), _) => Err(problem.into_runtime_error(key)),
            (_, None) => Err(RuntimeError::Unknown(key.clone())),
            _ => Err(RuntimeError::Io {
                key: key.clone(),
                what: "prepare it",
                source: io::Error::other("it ended without an answer, the server's log says why"),
            }),
        }
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
    use crate::tests::{key, key_of};

    fn unavailable(key: &AttemptKey) -> RuntimeError {
        RuntimeError::Unavailable {
            key: key.clone(),
            what: "bring its inputs",
            source: io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        }
    }

    #[tokio::test]
    async fn it_is_begun_once_and_waited_for() {
        let (all, key) = (Preparations::default(), key("a", 1));
        let begun = Arc::new(AtomicUsize::new(0));
        let (release, released) = oneshot::channel::<()>();
        let count = Arc::clone(&begun);
        all.begin(&key, async move {
            count.fetch_add(1, Ordering::Relaxed);
            released.await.map_err(io::Error::other).unwrap();
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

        release.send(()).unwrap();
        waits.await.unwrap();

        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert!(lock(&all.all).is_empty());
        all.wait(&key).await.unwrap();
    }

    #[tokio::test]
    async fn an_error_is_returned_to_all_who_wait_and_then_forgotten() {
        let (all, key) = (Preparations::default(), key("a", 1));
        let error = unavailable(&key);
        all.begin(&key, async move { Err(error) });

        let both = futures::future::join(all.wait(&key), all.wait(&key)).await;

        for result in [both.0, both.1] {
            let error = result.unwrap_err();
            assert!(
                matches!(error, RuntimeError::Unavailable { .. }),
                "{error:?}"
            );
            assert_eq!(chain(&error), chain(&unavailable(&key)));
        }
        all.begin(&key, async { Ok(()) });
        all.wait(&key).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_failed_is_begun_anew_though_nobody_waited() {
        let (all, key) = (Preparations::default(), key("a", 1));
        let error = unavailable(&key);
        all.begin(&key, async move { Err(error) });
        tokio::task::yield_now().await;

        all.begin(&key, async { Ok(()) });

        all.wait(&key).await.unwrap();
    }

    #[tokio::test]
    async fn it_ends_with_its_owner_and_others_go_on() {
        let all = Preparations::default();
        let (key, other) = (key_of("pipelines", "a", 1), key_of("tuning", "a", 1));
        let mut held = Vec::new();
        for key in [&key, &other] {
            let (holds, ends) = oneshot::channel::<()>();
            held.push(ends);
            all.begin(key, async move {
                let _holds = holds;
                std::future::pending().await
            });
        }
        tokio::task::yield_now().await;
        let waits = all.wait(&key);

        let (result, ()) = futures::future::join(waits, all.forget(&key.owner)).await;

        assert!(
            matches!(result, Err(RuntimeError::Unknown(_))),
            "{result:?}"
        );
        assert!(held.remove(0).await.is_err(), "the work is dropped");
        assert!(held.remove(0).now_or_never().is_none(), "the other goes on");
        assert_eq!(lock(&all.all).len(), 1);
    }

    #[tokio::test]
    async fn one_that_panics_is_an_error_and_can_be_begun_anew() {
        let (all, key) = (Preparations::default(), key("a", 1));
        all.begin(&key, async { panic!("a defect") });

        let error = all.wait(&key).await.unwrap_err().to_string();

        assert!(error.contains("prepare it"), "{error}");
        assert!(lock(&all.all).is_empty());
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
