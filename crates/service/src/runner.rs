//! Named tasks and how they stop: none is detached, and no end of one goes unnoticed.
//!
//! A stop is soft first: tasks see the token and finish what they are doing. After [`STOP_TIMEOUT`],
//! or at a second signal, it is hard: what still runs is aborted.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::worker;

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// The process cannot do its work without it: its failure stops everything.
    Critical,
    /// Its failure is logged.
    Helper,
    /// Its failure is logged. [`Runner::spawn_restarting`] begins it again after a while; others go on
    /// meanwhile.
    Restart,
}

/// How long tasks may take to stop before they are aborted.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long aborted tasks may take to end; one that blocks its thread never is.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A task that ran for so long before it failed is begun again as if it had not failed before.
const RESTART_RESET_AFTER: Duration = Duration::from_mins(1);

/// The tasks of a process.
pub struct Runner {
    tasks: JoinSet<Result<(), String>>,
    names: HashMap<Id, (String, TaskKind)>,
    stop: CancellationToken,
    stop_timeout: Duration,
}

impl Default for Runner {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            names: HashMap::new(),
            stop: CancellationToken::new(),
            stop_timeout: STOP_TIMEOUT,
        }
    }
}

/// A task's end, before it is judged.
struct TaskEnd {
    name: String,
    kind: TaskKind,
    result: Result<(), String>,
    /// It was aborted, which is nobody's failure.
    aborted: bool,
    panicked: bool,
}

impl Runner {
    /// Cancelled when the process is to stop; every task waits for it among other things.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Gives tasks at least so long to stop.
    pub fn extend_stop_timeout(&mut self, stop_timeout: Duration) {
        self.stop_timeout = self.stop_timeout.max(stop_timeout);
    }

    /// Runs a task.
    pub fn spawn<E: std::fmt::Display>(
        &mut self,
        kind: TaskKind,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let handle = self
            .tasks
            .spawn(async move { task.await.map_err(|error| error.to_string()) });
        self.names.insert(handle.id(), (name.into(), kind));
    }

    /// Runs a task that is made anew when it fails or panics, each time after a longer wait.
    pub fn spawn_restarting<E, F>(
        &mut self,
        name: impl Into<String>,
        mut make: impl FnMut() -> F + Send + 'static,
    ) where
        E: std::fmt::Display,
        F: Future<Output = Result<(), E>> + Send,
    {
        let (name, stop) = (name.into(), self.stop.clone());
        let task = name.clone();
        let again = async move {
            let mut failures = 0;
            loop {
                let begun = Instant::now();
                // A panic is caught in there: `JoinSet` would report it, and a panic stops the
                // process.
                let Some(problem) = failure_of(make()).await else {
                    return Ok(());
                };
                // One that did well for a while fails for another reason than before.
                if begun.elapsed() > RESTART_RESET_AFTER {
                    failures = 0;
                }
                let wait = worker::backoff(failures);
                failures += 1;
                metrics::counter!("ferroflow_task_restarts_total", "task" => task.clone())
                    .increment(1);
                tracing::error!(task, problem, ?wait, "a task failed and is begun again");
                tokio::select! {
                    () = stop.cancelled() => return Err(problem),
                    () = tokio::time::sleep(wait) => {}
                }
            }
        };
        self.spawn::<String>(TaskKind::Restart, name, again);
    }

    /// Runs until `stop` says so or a critical task ends; then stops everything.
    ///
    /// # Errors
    /// Which task failed, and why.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), String> {
        let again = async {
            // Without a handler no second signal can come; the timeout ends the wait.
            if shutdown_signal().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        self.run_until(stop, again).await
    }

    async fn run_until(
        mut self,
        stop: impl Future<Output = ()>,
        again: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let mut failure = None;
        tokio::pin!(stop);
        while failure.is_none() {
            tokio::select! {
                () = &mut stop => break,
                end = self.next_task_end() => match end {
                    None => break,
                    Some(end) => failure = end.fatal_error(),
                },
            }
        }
        // After a failure too: the other tasks may still finish what they are doing.
        self.stop.cancel();
        let stop_timeout = self.stop_timeout;
        tokio::select! {
            () = self.drain(&mut failure) => return failure.map_or(Ok(()), Err),
            () = again => tracing::warn!("told to stop again"),
            () = tokio::time::sleep(stop_timeout) => {}
        }
        for (name, _) in self.names.values() {
            tracing::warn!(task = name, "did not stop in time and is aborted");
        }
        self.tasks.abort_all();
        let drained = tokio::time::timeout(ABORT_TIMEOUT, self.drain(&mut failure));
        if drained.await.is_err() {
            tracing::warn!("tasks that block their threads are left behind");
        }
        failure.map_or(Ok(()), Err)
    }

    /// Waits for all tasks that are left. That they end is as it should be; that they fail is not.
    async fn drain(&mut self, failure: &mut Option<String>) {
        while let Some(end) = self.next_task_end().await {
            if end.result.is_err()
                && let Some(problem) = end.fatal_error()
            {
                tracing::error!(problem, "while stopping");
                failure.get_or_insert(problem);
            }
        }
    }

    async fn next_task_end(&mut self) -> Option<TaskEnd> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let (name, kind) = self
            .names
            .remove(&id)
            .unwrap_or_else(|| ("a task without a name".to_owned(), TaskKind::Critical));
        let (aborted, panicked) = match &ended {
            Ok(_) => (false, false),
            Err(error) => (error.is_cancelled(), error.is_panic()),
        };
        let result = match ended {
            Ok((_, result)) => result,
            Err(error) => Err(join_error_message(error)),
        };
        Some(TaskEnd {
            name,
            kind,
            result,
            aborted,
            panicked,
        })
    }
}

/// Why a task failed, if it did.
async fn failure_of<E: std::fmt::Display>(
    task: impl Future<Output = Result<(), E>>,
) -> Option<String> {
    // The future is dropped after a panic, so nothing sees what it left half done.
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(ended) => ended.err().map(|error| error.to_string()),
        Err(panic) => Some(format!(
            "panicked: {}",
            panic_message(&*panic).unwrap_or("?")
        )),
    }
}

/// What a panic said.
fn join_error_message(error: JoinError) -> String {
    let text = error.to_string();
    let Ok(panic) = error.try_into_panic() else {
        return text;
    };
    panic_message(&*panic).map_or(text, str::to_owned)
}

fn panic_message(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}

impl TaskEnd {
    /// Why the process must stop because of this end, if it must.
    fn fatal_error(self) -> Option<String> {
        let Self { name, kind, .. } = self;
        match (self.result, kind) {
            _ if self.aborted => None,
            // A panic is a defect whatever the task was for.
            (Err(message), _) if self.panicked => Some(format!("{name} panicked: {message}")),
            (Ok(()), TaskKind::Helper | TaskKind::Restart) => None,
            (Err(error), TaskKind::Helper | TaskKind::Restart) => {
                tracing::error!(task = name, error, "a task failed");
                None
            }
            (Ok(()), TaskKind::Critical) => Some(format!("{name} ended")),
            (Err(error), TaskKind::Critical) => Some(format!("{name} failed: {error}")),
        }
    }
}

/// Returns at the first interrupt or termination signal.
pub async fn shutdown_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = tokio::signal::ctrl_c() => done,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Instant as Clock;

    use super::*;

    async fn wait_for(token: CancellationToken) -> Result<(), String> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_critical_failure_stops_the_others() {
        let mut runner = Runner::default();
        let stopping = runner.stop_token();
        runner.spawn(TaskKind::Helper, "waits", wait_for(stopping));
        runner.spawn(TaskKind::Helper, "fails", async { Err("no matter") });
        runner.spawn(TaskKind::Critical, "breaks", async { Err("at once") });

        let error = runner.run_until(pending(), pending()).await.unwrap_err();

        assert_eq!(error, "breaks failed: at once");
    }

    #[tokio::test]
    async fn a_critical_task_that_ends_too_soon_is_a_failure_and_a_helper_is_none() {
        let mut runner = Runner::default();
        runner.spawn(TaskKind::Helper, "helps", async { Ok::<_, String>(()) });
        runner.spawn(TaskKind::Critical, "serves", async { Ok::<_, String>(()) });

        let error = runner.run_until(pending(), pending()).await.unwrap_err();

        assert_eq!(error, "serves ended");
    }

    #[tokio::test]
    async fn a_panic_stops_everything_and_says_whose_it_was() {
        let mut runner = Runner::default();
        let broken: Result<(), String> = Ok(());
        runner.spawn(TaskKind::Helper, "retention", async move {
            assert!(broken.is_err(), "on purpose");
            broken
        });

        let error = runner.run_until(pending(), pending()).await.unwrap_err();

        assert_eq!(error, "retention panicked: on purpose");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_restarts_is_begun_again_after_failures_and_panics() {
        let mut runner = Runner::default();
        let (begun, mut begins) = tokio::sync::mpsc::channel(10);
        let mut times = 0;
        let stopping = runner.stop_token();
        runner.spawn_restarting("relay", move || {
            times += 1;
            let (times, begun, stopping) = (times, begun.clone(), stopping.clone());
            async move {
                begun.send(tokio::time::Instant::now()).await.unwrap();
                match times {
                    1 => Err("away"),
                    2 => panic!("on purpose"),
                    _ => wait_for(stopping).await.map_err(|_| "never"),
                }
            }
        });
        let third = async {
            let mut at = Vec::new();
            for _ in 0..3 {
                at.push(begins.recv().await.unwrap());
            }
            let waits = [at[1] - at[0], at[2] - at[1]];
            assert_eq!(waits, [worker::backoff(0), worker::backoff(1)]);
        };

        assert_eq!(runner.run_until(third, pending()).await, Ok(()));
    }

    #[tokio::test]
    async fn tasks_end_as_they_like_once_they_are_told_to_stop() {
        let mut runner = Runner::default();
        let stopping = runner.stop_token();
        runner.spawn(TaskKind::Critical, "serves", wait_for(stopping));

        assert_eq!(runner.run_until(async {}, pending()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_failure_while_stopping_is_told() {
        let mut runner = Runner::default();
        let stopping = runner.stop_token();
        runner.spawn(TaskKind::Critical, "relay", async move {
            stopping.cancelled().await;
            Err("the disk is full")
        });

        let error = runner.run_until(async {}, pending()).await.unwrap_err();

        assert_eq!(error, "relay failed: the disk is full");
    }

    #[tokio::test]
    async fn a_second_signal_does_not_wait_for_a_task_that_will_not_stop() {
        let mut runner = Runner::default();
        runner.spawn(TaskKind::Critical, "deaf", pending::<Result<(), String>>());
        let begun = Clock::now();

        assert_eq!(runner.run_until(async {}, async {}).await, Ok(()));

        assert!(begun.elapsed() < STOP_TIMEOUT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_will_not_stop_is_aborted_after_a_while() {
        let mut runner = Runner::default();
        runner.spawn(TaskKind::Critical, "deaf", pending::<Result<(), String>>());
        let begun = tokio::time::Instant::now();

        assert_eq!(runner.run_until(async {}, pending()).await, Ok(()));

        assert_eq!(begun.elapsed(), STOP_TIMEOUT);
    }
}
