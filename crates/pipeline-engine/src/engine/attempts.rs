//! Results of commands, retries, cancellation.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_types::TaskId;

use super::node::{NodeIx, NodeState, Role, Values};
use super::{AttemptFailure, Effect, RunPhase, Turn, Work};
use crate::plan::{Body, RetryPolicy};

/// How often an attempt is repeated because its launcher vanished.
const LOST_MAX: u32 = 3;

impl Turn<'_> {
    pub(super) fn attempt_ended(
        &mut self,
        task: TaskId,
        attempt: u32,
        result: Result<Values, AttemptFailure>,
    ) {
        let Some(ix) = self.run.find(task) else {
            return;
        };
        let node = self.node(ix);
        let current = matches!(node.state, NodeState::Running | NodeState::Queued);
        // A late report of an attempt that was given up changes nothing.
        if node.attempt != attempt || !current {
            return;
        }
        let plan = Arc::clone(&self.run.plan);
        let body = &plan.component(node.component).body;
        match result {
            Ok(_) if let Body::Importer(importer) = body => self.import(ix, importer),
            Ok(outputs) => {
                self.change(ix).outputs = outputs;
                self.enter(ix, NodeState::Succeeded);
            }
            Err(failure) if !self.going_on() => {
                self.change(ix).error = Some(failure.error);
                self.enter(ix, NodeState::Canceled);
            }
            Err(failure) => self.attempt_failed(ix, failure),
        }
    }

    /// Takes note of what a command waits for. It stays where it stands.
    pub(super) fn noted(&mut self, task: TaskId, attempt: u32, note: String) {
        let Some(ix) = self.run.find(task) else {
            return;
        };
        let node = self.node(ix);
        let current = node.attempt == attempt && node.state == NodeState::Running;
        if !current || node.note == note {
            return;
        }
        self.decision.noted.push(ix);
        self.change(ix).note = note;
    }

    /// Takes note of what a command does not get.
    pub(super) fn remarked(&mut self, task: TaskId, attempt: u32, remarks: Vec<String>) {
        if let Some(ix) = self.run.find(task)
            && self.node(ix).attempt == attempt
            && self.node(ix).remarks != remarks
        {
            self.change(ix).remarks = remarks;
        }
    }

    fn attempt_failed(&mut self, ix: NodeIx, failure: AttemptFailure) {
        let policy = self.run.task(ix).and_then(|task| task.retry);
        let now = self.now;
        let node = self.change(ix);
        let wait = if failure.lost {
            node.lost += 1;
            (node.lost <= LOST_MAX).then_some(Duration::ZERO)
        } else {
            node.failures += 1;
            policy.and_then(|policy| policy.wait_before_retry(node.failures))
        };
        node.error = Some(failure.error);
        match wait {
            None => self.enter(ix, NodeState::Failed),
            Some(wait) => {
                let at = now.plus(wait);
                self.change(ix).retry_at = Some(at);
                self.enter(ix, NodeState::Backoff);
                self.effect(Effect::WakeAt { node: ix, at });
            }
        }
    }

    pub(super) fn retry_due(&mut self, task: TaskId) {
        let Some(ix) = self.run.find(task) else {
            return;
        };
        if self.node(ix).state == NodeState::Backoff && self.going_on() {
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
            RunPhase::Canceling | RunPhase::Expiring | RunPhase::Ended(_) => return,
        }
        self.run.phase = phase;
        let open: Vec<NodeIx> = self
            .run
            .nodes()
            .filter(|(_, node)| !node.state.ended())
            .map(|(ix, _)| ix)
            .collect();
        for ix in open {
            let node = self.node(ix);
            if node.role == Role::Root || self.has_children(ix) && node.state == NodeState::Running
            {
                continue;
            }
            let attempt = node.attempt;
            match node.state {
                NodeState::Running => self.effect(Effect::Stop { node: ix, attempt }),
                NodeState::Pending | NodeState::Queued | NodeState::Backoff => {
                    self.enter(ix, NodeState::Canceled);
                }
                _ => {}
            }
        }
        // A loop between two iterations has no child whose end would end it.
        let loops: Vec<NodeIx> = self
            .run
            .nodes()
            .filter(|(_, node)| node.state == NodeState::Running && node.progress.is_some())
            .map(|(ix, _)| ix)
            .collect();
        for ix in loops {
            self.advance_loop(ix);
        }
    }

    fn has_children(&self, ix: NodeIx) -> bool {
        self.node(ix).children.is_some() || self.node(ix).progress.is_some()
    }

    /// A node that is to run (again) waits like a new one; ids and attempt numbers go on.
    pub(super) fn renew(&mut self, ix: NodeIx) {
        let node = self.change(ix);
        node.inputs = Values::default();
        node.outputs = Values::default();
        node.error = None;
        node.cache = None;
        node.remarks = Vec::new();
        node.started_at = None;
        node.finished_at = None;
        node.retry_at = None;
        node.failures = 0;
        node.lost = 0;
        self.enter(ix, NodeState::Pending);
    }

    /// Asks for a node whose upstream has ended to be looked at.
    pub(super) fn recheck(&mut self, ix: NodeIx) {
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
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(self.backoff_max);
        Some(wait.min(self.backoff_max))
    }
}

#[cfg(test)]
impl AttemptFailure {
    /// A failure that has a message only.
    pub(crate) fn new(reason: &str, message: &str) -> Self {
        Self {
            error: super::node::NodeError::new(reason, message),
            lost: false,
        }
    }
}
