//! A failed run starts again where it failed: what succeeded is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::task::{TaskIx, TaskState};
use super::{RunEnd, RunPhase, Step};
use crate::plan::{Body, Dag, TaskSpecIx};

impl Step<'_> {
    pub(super) fn retry_run(&mut self) {
        let retryable = matches!(
            self.run.phase,
            RunPhase::Ended(RunEnd::Failed | RunEnd::Canceled)
        );
        if !retryable || self.run.tasks.is_empty() {
            return;
        }
        self.run.phase = RunPhase::Running;
        self.resume_dag(TaskIx(0));
    }

    /// Opens a DAG that has ended; its tasks that did not succeed run again.
    fn resume_dag(&mut self, ix: TaskIx) {
        let plan = Arc::clone(&self.run.plan);
        let Body::Dag(dag) = &plan.component(self.task(ix).component).body else {
            return;
        };
        self.reopen(ix);
        // A DAG that was restored has no first child if its plan has no tasks. Starting it ends it.
        let Some(first) = self.task(ix).children else {
            return self.start_dag(ix);
        };
        let to_repeat = self.tasks_to_repeat(first, dag);
        self.change(ix).open_children = super::flow::count(to_repeat.len());
        for &spec in &to_repeat {
            let waiting = dag
                .task(spec)
                .upstream
                .iter()
                .filter(|up| to_repeat.contains(up))
                .count();
            let child = TaskIx(first.0 + spec.0);
            let stopped = matches!(
                self.task(child).state,
                TaskState::Failed | TaskState::Canceled
            );
            // A failed DAG or loop goes on inside and keeps what succeeded there. One that waits for a
            // task which runs again gets other inputs, so it begins anew.
            if waiting == 0 && stopped {
                self.resume_task(child);
            } else {
                self.reset(child);
                self.change(child).waiting = super::flow::count(waiting);
                if waiting == 0 {
                    self.queue_ready(child);
                }
            }
        }
        if to_repeat.is_empty() {
            self.end_dag(ix);
        }
    }

    /// What did not succeed, and everything downstream of it.
    fn tasks_to_repeat(&self, first: TaskIx, dag: &Dag) -> BTreeSet<TaskSpecIx> {
        let to_spec_ix = |ix: u32| TaskSpecIx(ix);
        // A condition that was false is evaluated again only if something that it depends on runs
        // again.
        let keeps_result = |state: TaskState| state.succeeded() || state == TaskState::NotTriggered;
        let mut open: Vec<TaskSpecIx> = (0..super::flow::count(dag.tasks.len()))
            .filter(|ix| !keeps_result(self.task(TaskIx(first.0 + ix)).state))
            .map(to_spec_ix)
            .collect();
        let mut to_repeat = BTreeSet::new();
        while let Some(spec) = open.pop() {
            if to_repeat.insert(spec) {
                open.extend(&dag.task(spec).downstream);
            }
        }
        to_repeat
    }

    /// A failed task: a DAG or loop goes on inside, a command starts a new attempt.
    fn resume_task(&mut self, ix: TaskIx) {
        // One that was reset by an earlier retry, and has not started since, has the children of its
        // former start: results for other inputs.
        let was_started = self.task(ix).started_at.is_some();
        if was_started && self.run.runs_dag(ix) && self.task(ix).children.is_some() {
            self.resume_dag(ix);
        } else if was_started && self.task(ix).progress.is_some() {
            self.resume_loop(ix);
        } else {
            self.reset(ix);
            self.change(ix).waiting = 0;
            self.queue_ready(ix);
        }
    }

    fn resume_loop(&mut self, ix: TaskIx) {
        self.reopen(ix);
        let progress = self.task(ix).progress.as_ref();
        let begun = progress.map(|progress| progress.iterations[..progress.started].to_vec());
        let failed: Vec<TaskIx> = begun
            .unwrap_or_default()
            .into_iter()
            .filter(|&iteration| !self.task(iteration).state.succeeded())
            .collect();
        // Iterations that were begun are resumed here; `advance_loop` starts those that were not.
        if let Some(progress) = self.run.task_mut(ix).progress.as_deref_mut() {
            progress.failed = false;
            progress.open = failed.len();
        }
        for iteration in failed {
            let task = self.task(iteration);
            let was_started = task.started_at.is_some() && task.children.is_some();
            if was_started && self.run.runs_dag(iteration) {
                self.resume_dag(iteration);
            } else {
                self.reset(iteration);
                self.begin_iteration(ix, iteration);
            }
        }
        self.advance_loop(ix);
    }

    fn reopen(&mut self, ix: TaskIx) {
        let task = self.change(ix);
        task.finished_at = None;
        task.error = None;
        self.enter(ix, TaskState::Running);
    }
}
