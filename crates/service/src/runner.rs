//! Named tasks and how they stop: nothing runs detached, nothing dies unseen.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// The process cannot do its work without it: its failure stops everything.
    Critical,
    /// Its failure is logged.
    Helper,
}

/// How long tasks may take to stop before they are aborted.
const PATIENCE: Duration = Duration::from_secs(10);

/// A task's end: its name, its kind, its error.
type End = (&'static str, TaskKind, Result<(), String>);

/// The tasks of a process.
pub struct Runner {
    tasks: JoinSet<End>,
    stop: CancellationToken,
}

impl Default for Runner {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }
}

impl Runner {
    /// Cancelled when the process is to stop; every task waits for it among other things.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task.
    pub fn spawn<E: std::fmt::Display>(
        &mut self,
        kind: TaskKind,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks
            .spawn(async move { (name, kind, task.await.map_err(|e| e.to_string())) });
    }

    /// Runs until `stop` says so or a critical task ends; then stops everything.
    ///
    /// # Errors
    /// Which task failed, and why.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), String> {
        let mut failure = None;
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                ended = self.tasks.join_next() => match ended {
                    None => break,
                    Some(ended) => if let Some(cause) = judge(ended) {
                        failure = Some(cause);
                        break;
                    },
                },
            }
        }
        self.stop.cancel();
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, rest).await.is_err() {
            tracing::warn!("tasks did not stop in time and are aborted");
            self.tasks.abort_all();
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Why the process must stop because of this end, if it must.
fn judge(ended: Result<End, tokio::task::JoinError>) -> Option<String> {
    match ended {
        Ok((_, TaskKind::Helper, Ok(()))) => None,
        Ok((name, TaskKind::Helper, Err(error))) => {
            tracing::error!(task = name, error, "a task failed");
            None
        }
        Ok((name, TaskKind::Critical, Ok(()))) => Some(format!("{name} ended")),
        Ok((name, TaskKind::Critical, Err(error))) => Some(format!("{name} failed: {error}")),
        // A panic is a defect whatever the task was for.
        Err(error) => Some(format!("a task panicked: {error}")),
    }
}

/// Returns at the first interrupt or termination signal.
pub async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = tokio::signal::ctrl_c() => done,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_critical_failure_stops_the_others() {
        let mut runner = Runner::default();
        let stopping = runner.stopping();
        runner.spawn(TaskKind::Helper, "waits", async move {
            stopping.cancelled().await;
            Ok::<_, String>(())
        });
        runner.spawn(TaskKind::Helper, "fails", async { Err("no matter") });
        runner.spawn(TaskKind::Critical, "breaks", async { Err("at once") });

        let error = runner.run(std::future::pending()).await.unwrap_err();

        assert_eq!(error, "breaks failed: at once");
    }
}
