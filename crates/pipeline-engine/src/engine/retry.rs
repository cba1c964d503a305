//! A failed run starts again where it failed: what succeeded is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::node::{NodeIx, NodeState};
use super::{RunEnd, RunPhase, Turn};
use crate::plan::{Body, Dag, TaskIx};

impl Turn<'_> {
    pub(super) fn retry_run(&mut self) {
        let retryable = matches!(
            self.run.phase,
            RunPhase::Ended(RunEnd::Failed | RunEnd::Canceled)
        );
        if !retryable || self.run.nodes.is_empty() {
            return;
        }
        self.run.phase = RunPhase::Running;
        self.resume_dag(NodeIx(0));
    }

    /// Brings an ended DAG back to life; its tasks that did not succeed run again.
    fn resume_dag(&mut self, ix: NodeIx) {
        let plan = Arc::clone(&self.run.plan);
        let Body::Dag(dag) = &plan.component(self.node(ix).component).body else {
            return;
        };
        self.reopen(ix);
        let Some(first) = self.node(ix).children else {
            return self.start_dag(ix);
        };
        let again = self.tasks_to_repeat(first, dag);
        self.change(ix).open_children = super::flow::count(again.len());
        for &task in &again {
            let waiting = dag
                .task(task)
                .upstream
                .iter()
                .filter(|up| again.contains(up))
                .count();
            let child = NodeIx(first.0 + task.0);
            let stopped = matches!(
                self.node(child).state,
                NodeState::Failed | NodeState::Canceled
            );
            if waiting == 0 && stopped {
                self.resume_task(child);
            } else {
                self.renew(child);
                self.change(child).waiting = super::flow::count(waiting);
                if waiting == 0 {
                    self.recheck(child);
                }
            }
        }
        if again.is_empty() {
            self.end_dag(ix);
        }
    }

    /// What did not succeed, and everything downstream of it.
    fn tasks_to_repeat(&self, first: NodeIx, dag: &Dag) -> BTreeSet<TaskIx> {
        let place = |ix: u32| TaskIx(ix);
        let kept = |state: NodeState| state.succeeded() || state == NodeState::NotTriggered;
        let mut open: Vec<TaskIx> = (0..super::flow::count(dag.tasks.len()))
            .filter(|ix| !kept(self.node(NodeIx(first.0 + ix)).state))
            .map(place)
            .collect();
        let mut again = BTreeSet::new();
        while let Some(task) = open.pop() {
            if again.insert(task) {
                open.extend(&dag.task(task).downstream);
            }
        }
        again
    }

    /// A failed task: a DAG or loop goes on inside, a command starts a new attempt.
    fn resume_task(&mut self, ix: NodeIx) {
        if self.run.runs_dag(ix) && self.node(ix).children.is_some() {
            self.resume_dag(ix);
        } else if self.node(ix).progress.is_some() {
            self.resume_loop(ix);
        } else {
            self.renew(ix);
            self.change(ix).waiting = 0;
            self.recheck(ix);
        }
    }

    fn resume_loop(&mut self, ix: NodeIx) {
        self.reopen(ix);
        let iterations = self
            .node(ix)
            .progress
            .as_ref()
            .map(|progress| progress.iterations.clone());
        let failed: Vec<NodeIx> = iterations
            .unwrap_or_default()
            .into_iter()
            .filter(|&iteration| !self.node(iteration).state.succeeded())
            .collect();
        if let Some(progress) = self.run.node_mut(ix).progress.as_deref_mut() {
            progress.failed = false;
            progress.started = progress.iterations.len();
            progress.open = failed.len();
        }
        for iteration in failed {
            if self.run.runs_dag(iteration) && self.node(iteration).children.is_some() {
                self.resume_dag(iteration);
            } else {
                self.renew(iteration);
                self.begin_iteration(ix, iteration);
            }
        }
        self.advance_loop(ix);
    }

    fn reopen(&mut self, ix: NodeIx) {
        let node = self.change(ix);
        node.finished_at = None;
        node.error = None;
        self.enter(ix, NodeState::Running);
    }
}
