//! A task becomes ready, starts, ends; a DAG starts its tasks and ends with them.

use std::sync::Arc;

use ferroflow_types::TaskId;

use super::node::{Node, NodeError, NodeIx, NodeState, Role};
use super::{Effect, RunEnd, RunPhase, Turn, Work};
use crate::artifact::Artifact;
use crate::plan::{Body, Dag, Importer, Task, TaskIx, TriggerStrategy};
use crate::task_path;

impl Turn<'_> {
    /// The run begins: its root DAG runs.
    pub(super) fn start(&mut self) {
        if self.run.phase != RunPhase::New {
            return;
        }
        self.run.phase = RunPhase::Running;
        let id = TaskId::derive(self.run.facts.run, "root");
        let component = self.run.plan.root;
        let root = Node::pending(id, "root".to_owned(), None, Role::Root, component, self.now);
        let ix = self.add(root);
        let inputs = self.run.root_inputs();
        self.change(ix).inputs = inputs;
        self.begin(ix);
    }

    /// Starts the tasks of a DAG, those that wait for nothing at once.
    pub(super) fn start_dag(&mut self, ix: NodeIx) {
        let plan = Arc::clone(&self.run.plan);
        let Body::Dag(dag) = &plan.component(self.node(ix).component).body else {
            return;
        };
        self.enter(ix, NodeState::Running);
        let first = match self.node(ix).children {
            Some(first) => self.renew_children(first, dag),
            None => self.add_children(ix, dag),
        };
        let node = self.change(ix);
        node.children = Some(first);
        node.open_children = count(dag.tasks.len());
        for (place, task) in (0u32..).zip(&dag.tasks) {
            if task.upstream.is_empty() {
                self.work.push_back(Work::Ready(NodeIx(first.0 + place)));
            }
        }
        if dag.tasks.is_empty() {
            self.end_dag(ix);
        }
    }

    fn add_children(&mut self, parent: NodeIx, dag: &Dag) -> NodeIx {
        let run = self.run.facts.run;
        let prefix = self.node(parent).path.clone();
        let first = NodeIx(count(self.run.nodes.len()));
        for (place, task) in (0u32..).zip(&dag.tasks) {
            let path = task_path::child(&prefix, &task.key);
            let id = TaskId::derive(run, &path);
            let role = Role::Task(TaskIx(place));
            let mut node = Node::pending(id, path, Some(parent), role, task.component, self.now);
            node.waiting = count(task.upstream.len());
            self.add(node);
        }
        first
    }

    /// A DAG that runs for a second time takes its tasks as new ones.
    fn renew_children(&mut self, first: NodeIx, dag: &Dag) -> NodeIx {
        for (place, task) in (0u32..).zip(&dag.tasks) {
            let child = NodeIx(first.0 + place);
            self.renew(child);
            self.change(child).waiting = count(task.upstream.len());
        }
        first
    }

    /// Everything that the task waits for has ended: it starts, or it never will.
    pub(super) fn ready(&mut self, ix: NodeIx) {
        if self.node(ix).state != NodeState::Pending || !self.going_on() {
            return;
        }
        let plan = Arc::clone(&self.run.plan);
        let Some((parent, task)) = self.run.planned(&plan, ix) else {
            return;
        };
        if task.strategy == TriggerStrategy::AllSucceeded && !self.upstream_succeeded(parent, task)
        {
            self.enter(ix, NodeState::Omitted);
            return;
        }
        match self.run.resolve_inputs(ix, parent, task) {
            Ok(inputs) => self.change(ix).inputs = inputs,
            Err(error) => return self.fail(ix, error),
        }
        if let Some(condition) = &task.condition {
            match condition.condition(&self.run.condition_inputs(ix)) {
                Ok(true) => {}
                Ok(false) => return self.enter(ix, NodeState::NotTriggered),
                Err(error) => {
                    let message = format!("condition cannot be evaluated: {error}");
                    return self.fail(ix, NodeError::new("Condition", message));
                }
            }
        }
        match &task.iterator {
            Some(iterator) => self.start_loop(ix, iterator),
            None => self.begin(ix),
        }
    }

    fn upstream_succeeded(&self, parent: NodeIx, task: &Task) -> bool {
        let Some(first) = self.node(parent).children else {
            return false;
        };
        task.upstream
            .iter()
            .all(|up| self.node(NodeIx(first.0 + up.0)).state.succeeded())
    }

    /// Inputs are there, nothing stands in the way: the body runs.
    pub(super) fn begin(&mut self, ix: NodeIx) {
        let plan = Arc::clone(&self.run.plan);
        match &plan.component(self.node(ix).component).body {
            Body::Dag(_) => self.start_dag(ix),
            Body::Importer(importer) if importer.download_to_workspace => {
                // The artifact is made when its content is there.
                let request = self.run.import_request(ix, importer);
                match request.and_then(|(uri, _)| self.run.place_in_workspace(&uri)) {
                    Ok(_) => self.launch(ix),
                    Err(error) => self.fail(ix, error),
                }
            }
            Body::Importer(importer) => {
                self.change(ix).attempt += 1;
                self.enter(ix, NodeState::Running);
                self.import(ix, importer);
            }
            Body::Container(_) => self.queue(ix),
        }
    }

    /// Asks for the artifact of an importer that runs.
    pub(super) fn import(&mut self, ix: NodeIx, importer: &Importer) {
        match self.run.import_request(ix, importer) {
            Ok((uri, metadata)) => self.effect(Effect::Import {
                node: ix,
                uri,
                metadata,
            }),
            Err(error) => self.fail(ix, error),
        }
    }

    /// The next attempt may start as soon as there is a slot.
    pub(super) fn launch(&mut self, ix: NodeIx) {
        let node = self.change(ix);
        node.attempt += 1;
        node.error = None;
        let attempt = node.attempt;
        self.enter(ix, NodeState::Queued);
        self.effect(Effect::Launch { node: ix, attempt });
    }

    pub(super) fn imported(&mut self, task: TaskId, result: Result<Arc<Artifact>, NodeError>) {
        let Some(ix) = self.run.find(task) else {
            return;
        };
        if self.node(ix).state != NodeState::Running {
            return;
        }
        match result {
            Ok(artifact) => {
                let name = self.run.importer_output(ix);
                self.change(ix)
                    .outputs
                    .artifacts
                    .insert(name, vec![artifact]);
                self.enter(ix, NodeState::Succeeded);
            }
            Err(error) => self.fail(ix, error),
        }
    }

    pub(super) fn slot_granted(&mut self, task: TaskId, attempt: u32) {
        let Some(ix) = self.run.find(task) else {
            return;
        };
        let node = self.node(ix);
        if node.state == NodeState::Queued && node.attempt == attempt {
            self.enter(ix, NodeState::Running);
        }
    }

    /// A node has ended: those that wait for it learn of it, and the DAG or loop it is in.
    pub(super) fn ended(&mut self, ix: NodeIx) {
        let Some(parent) = self.node(ix).parent else {
            return self.end_run(ix);
        };
        match self.node(ix).role {
            Role::Root => {}
            Role::Iteration(_) => self.iteration_ended(parent, ix),
            Role::Task(place) => {
                self.release_downstream(parent, place);
                let open = self.node(parent).open_children.saturating_sub(1);
                // Not stored (it follows from the children), so the node need not be either.
                self.run.node_mut(parent).open_children = open;
                if open == 0 {
                    self.end_dag(parent);
                }
            }
        }
    }

    fn release_downstream(&mut self, parent: NodeIx, place: TaskIx) {
        let plan = Arc::clone(&self.run.plan);
        let Body::Dag(dag) = &plan.component(self.node(parent).component).body else {
            return;
        };
        let Some(first) = self.node(parent).children else {
            return;
        };
        for next in &dag.task(place).downstream {
            let child = NodeIx(first.0 + next.0);
            let node = self.run.node_mut(child);
            node.waiting = node.waiting.saturating_sub(1);
            if node.waiting == 0 {
                self.work.push_back(Work::Ready(child));
            }
        }
    }

    /// All tasks of a DAG have ended.
    pub(super) fn end_dag(&mut self, ix: NodeIx) {
        if self.node(ix).state.ended() {
            return;
        }
        let outputs = self.run.dag_outputs(ix);
        let (failed, canceled) = self.run.verdict_of_children(ix);
        self.change(ix).outputs = outputs;
        let state = match (failed, canceled) {
            (true, _) => NodeState::Failed,
            (false, true) => NodeState::Canceled,
            (false, false) => NodeState::Succeeded,
        };
        self.enter(ix, state);
    }

    fn end_run(&mut self, root: NodeIx) {
        let end = match (self.run.phase, self.node(root).state) {
            (RunPhase::Canceling, _) => RunEnd::Canceled,
            (RunPhase::Running, NodeState::Succeeded) => RunEnd::Succeeded,
            _ => RunEnd::Failed,
        };
        if self.run.phase == RunPhase::Expiring {
            let message = "the run took longer than its activeDeadlineSeconds".to_owned();
            self.change(root).error = Some(NodeError::new("Timeout", message));
        }
        self.run.phase = RunPhase::Ended(end);
    }
}

/// Plans are limited to far fewer tasks than fit into 32 bits.
pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
