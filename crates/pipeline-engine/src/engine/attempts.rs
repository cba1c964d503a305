//! Results of commands, retries, cancellation.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_types::TaskId;

use super::task::{Role, TaskIx, TaskState, Values};
use super::{AttemptFailure, Effect, RunPhase, Step, Work};
use crate::plan::{Body, RetryPolicy};

/// How often an attempt is repeated because its launcher vanished.
const LOST_MAX: u32 = 3;

impl Step<'_> {
    pub(super) fn attempt_ended(
        &mut self,
        id: TaskId,
        attempt: u32,
        result: Result<Values, AttemptFailure>,
    ) {
        let Some(ix) = self.run.find(id) else {
            return;
        };
        let task = self.task(ix);
        // An attempt can end while it is queued: its specification could not be made, so it took no
        // slot.
        let current = matches!(task.state, TaskState::Running | TaskState::Queued);
        // A late report of an attempt that was given up changes nothing.
        if task.attempt != attempt || !current {
            return;
        }
        let plan = Arc::clone(&self.run.plan);
        let body = &plan.component(task.component).body;
        match result {
            // The attempt brought the content; now the artifact is found or made, as for every
            // importer.
            Ok(_) if let Body::Importer(importer) = body => self.import(ix, importer),
            Ok(outputs) => {
                self.change(ix).outputs = outputs;
                self.enter(ix, TaskState::Succeeded);
            }
            // The run is stopping: however its command failed, the task counts as cancelled and is not
            // retried.
            Err(failure) if !self.is_running() => {
                self.change(ix).error = Some(failure.error);
                self.enter(ix, TaskState::Canceled);
            }
            Err(failure) => self.attempt_failed(ix, failure),
        }
    }

    /// Takes note of what a command waits for. It stays where it stands.
    pub(super) fn set_note(&mut self, id: TaskId, attempt: u32, note: String) {
        let Some(ix) = self.run.find(id) else {
            return;
        };
        let task = self.task(ix);
        let current = task.attempt == attempt && task.state == TaskState::Running;
        if !current || task.note == note {
            return;
        }
        self.decision.noted.push(ix);
        self.change(ix).note = note;
    }

    /// Takes note of what a command does not get.
    pub(super) fn set_remarks(&mut self, id: TaskId, attempt: u32, remarks: Vec<String>) {
        if let Some(ix) = self.run.find(id)
            && self.task(ix).attempt == attempt
            && self.task(ix).remarks != remarks
        {
            self.change(ix).remarks = remarks;
        }
    }

    fn attempt_failed(&mut self, ix: TaskIx, failure: AttemptFailure) {
        let policy = self.run.spec(ix).and_then(|spec| spec.retry);
        let now = self.now;
        let task = self.change(ix);
        // A lost attempt says nothing of the command (its launcher vanished, its pod was evicted): the
        // next one begins at once and uses up no retry of the task's policy.
        let wait = if failure.lost {
            task.lost += 1;
            (task.lost <= LOST_MAX).then_some(Duration::ZERO)
        } else {
            task.failures += 1;
            policy.and_then(|policy| policy.wait_before_retry(task.failures))
        };
        task.error = Some(failure.error);
        match wait {
            None => self.enter(ix, TaskState::Failed),
            Some(wait) => {
                let at = now.plus(wait);
                self.change(ix).retry_at = Some(at);
                self.enter(ix, TaskState::Backoff);
                self.effect(Effect::WakeAt { task: ix, at });
            }
        }
    }

    pub(super) fn retry_due(&mut self, id: TaskId) {
        let Some(ix) = self.run.find(id) else {
            return;
        };
        if self.task(ix).state == TaskState::Backoff && self.is_running() {
            self.change(ix).retry_at = None;
            self.launch(ix);
        }
    }

    /// Nothing starts any more, exit tasks included; what runs is stopped.
    pub(super) fn stop_all(&mut self, phase: RunPhase) {
        match self.run.phase {
            RunPhase::Running => {}
            // Cancelled before anything began: there is still a root to end.
            RunPhase::New => self.start(),
            // The first reason to stop decides how the run ends.
            RunPhase::Canceling | RunPhase::Expiring | RunPhase::Ended(_) => return,
        }
        self.run.phase = phase;
        let open: Vec<TaskIx> = self
            .run
            .tasks()
            .filter(|(_, task)| !task.state.ended())
            .map(|(ix, _)| ix)
            .collect();
        for ix in open {
            let task = self.task(ix);
            // The root, DAGs and loops that run end with their children.
            if task.role == Role::Root || self.has_children(ix) && task.state == TaskState::Running
            {
                continue;
            }
            let attempt = task.attempt;
            match task.state {
                // The task stays running until the runtime reports that its command has ended.
                TaskState::Running => self.effect(Effect::Stop { task: ix, attempt }),
                TaskState::Pending | TaskState::Queued | TaskState::Backoff => {
                    self.enter(ix, TaskState::Canceled);
                }
                _ => {}
            }
        }
        // A loop between two iterations has no child whose end would end it.
        let loops: Vec<TaskIx> = self
            .run
            .tasks()
            .filter(|(_, task)| task.state == TaskState::Running && task.progress.is_some())
            .map(|(ix, _)| ix)
            .collect();
        for ix in loops {
            self.advance_loop(ix);
        }
    }

    fn has_children(&self, ix: TaskIx) -> bool {
        self.task(ix).children.is_some() || self.task(ix).progress.is_some()
    }

    /// A task that is to run (again) waits like a new one; ids and attempt numbers go on.
    pub(super) fn reset(&mut self, ix: TaskIx) {
        let task = self.change(ix);
        // The attempt number goes on: it names the attempt's folder or pod, and the runtime would take
        // a number that was used before for the former attempt.
        task.inputs = Values::default();
        task.outputs = Values::default();
        task.error = None;
        task.cache = None;
        task.remarks = Vec::new();
        task.started_at = None;
        task.finished_at = None;
        task.retry_at = None;
        task.failures = 0;
        task.lost = 0;
        self.enter(ix, TaskState::Pending);
    }

    /// Asks for a task whose upstream has ended to be looked at.
    pub(super) fn queue_ready(&mut self, ix: TaskIx) {
        self.work.push_back(Work::Ready(ix));
    }
}

impl RetryPolicy {
    /// How long to wait after failure number `failures` (from 1), `None` for no further attempt.
    /// The n-th retry waits `backoff · factor^(n-1)`, at most `backoff_max`.
    fn wait_before_retry(&self, failures: u32) -> Option<Duration> {
        if failures > self.max_retries {
            return None;
        }
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.backoff.as_secs_f64() * self.factor.max(0.0).powi(exponent);
        // The power may be infinite, which is no `Duration`.
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(self.backoff_max);
        Some(wait.min(self.backoff_max))
    }
}

#[cfg(test)]
impl AttemptFailure {
    /// A failure that has a message only.
    pub(crate) fn new(reason: &str, message: &str) -> Self {
        Self {
            error: super::task::TaskError::new(reason, message),
            lost: false,
        }
    }
}
