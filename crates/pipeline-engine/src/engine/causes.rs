//! Why a run, or a part of it, failed: the tasks that did, by path and error.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::task::{Task, TaskIx, TaskState};
use super::{RunEnd, RunPhase, RunState};

/// Tasks that a sentence names.
const NAMED_MAX: usize = 3;

impl RunState {
    /// Why the run failed: the task that failed first, or what the run's time was spent on.
    pub fn failure(&self) -> Option<String> {
        let root = TaskIx(0);
        // The root has an error of its own only when the run's time was up (`end_run`).
        if self.phase == RunPhase::Ended(RunEnd::Failed)
            && let Some(error) = self.tasks.first().and_then(|root| root.error.as_ref())
        {
            return Some(format!("{}{}", error.message, self.stopped_tasks()));
        }
        self.failure_in(root)
    }

    /// The task that failed first among `within` and what is below it, with its error.
    fn failure_in(&self, within: TaskIx) -> Option<String> {
        let failed = self
            .tasks()
            .filter(|(ix, task)| task.state == TaskState::Failed && self.is_in(*ix, within))
            .filter_map(|(_, task)| task.error.as_ref().map(|error| (task, error)));
        // Tasks that ended in one step have the same time: of these the first in the plan is named.
        let (first, count) = failed.fold((None::<(&Task, _)>, 0), |(first, count), this| {
            let first = first.filter(|(task, _)| task.finished_at <= this.0.finished_at);
            (Some(first.unwrap_or(this)), count + 1)
        });
        let (task, error) = first?;
        let others = match count {
            1 => String::new(),
            2 => " (and 1 more task failed)".to_owned(),
            more => format!(" (and {} more tasks failed)", more - 1),
        };
        Some(format!(
            "task {} failed: {}{others}",
            display_path(task),
            error.message
        ))
    }

    /// Whether a task is `within`, or below it. What is below a task that was reset by a retry, and not
    /// started since, is of its former start.
    fn is_in(&self, ix: TaskIx, within: TaskIx) -> bool {
        let mut at = ix;
        while at != within {
            match self.task(at).parent {
                Some(parent) if self.task(parent).started_at.is_some() => at = parent,
                _ => return false,
            }
        }
        true
    }

    /// The commands that had to end because the run did, those that took longest first.
    fn stopped_tasks(&self) -> String {
        let mut stopped: Vec<&Task> = self
            .tasks
            .iter()
            .filter(|task| task.state == TaskState::Canceled && task.started_at.is_some())
            .filter(|task| task.children.is_none() && task.progress.is_none())
            .collect();
        stopped.sort_by_key(|task| {
            let ended = task.finished_at.zip(task.started_at);
            Reverse(ended.map(|(finished, started)| finished.since(started)))
        });
        let named: Vec<_> = stopped
            .iter()
            .take(NAMED_MAX)
            .map(|task| display_path(task))
            .collect();
        let named = named.join(", ");
        match stopped.len() {
            0 => String::new(),
            1 => format!(", task {named} was stopped"),
            few if few <= NAMED_MAX => format!(", tasks {named} were stopped"),
            many => format!(", tasks {named} and {} more were stopped", many - NAMED_MAX),
        }
    }

    /// `PipelineTaskFinalStatus` of a task, with KFP's state words.
    pub(super) fn final_status(&self, producer: TaskIx) -> Value {
        let task = self.task(producer);
        // The words are those of upstream's metadata store and not of its API: components compare with
        // `COMPLETE`, as one of upstream's test pipelines does.
        let state = match task.state {
            TaskState::Succeeded | TaskState::Cached => "COMPLETE",
            TaskState::Failed => "FAILED",
            TaskState::Canceled | TaskState::NotTriggered | TaskState::Omitted => "CANCELED",
            TaskState::Pending | TaskState::Queued | TaskState::Running | TaskState::Backoff => {
                "RUNNING"
            }
        };
        let error = match task.state {
            TaskState::Failed => {
                let cause = self.failure_in(producer);
                let cause = cause.unwrap_or_else(|| format!("task {} failed", display_path(task)));
                // 13 is INTERNAL of `google.rpc.Code`. Upstream leaves the error empty.
                json!({"code": 13, "message": cause})
            }
            _ => json!({}),
        };
        let name = self.spec(producer).map_or("root", |spec| &spec.key);
        json!({
            "state": state,
            "pipelineJobResourceName": self.facts.resource_name,
            "pipelineTaskName": name,
            "error": error,
        })
    }
}

/// What a task is called among those of its run.
fn display_path(task: &Task) -> &str {
    task.path.strip_prefix("root.").unwrap_or(&task.path)
}
