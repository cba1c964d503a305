//! A task becomes ready, starts, ends; a DAG starts its tasks and ends with them.

use std::sync::Arc;

use ferroflow_types::TaskId;

use super::task::{Role, Task, TaskError, TaskIx, TaskState};
use super::{Effect, RunEnd, RunPhase, Step, Work};
use crate::artifact::Artifact;
use crate::plan::{Body, Dag, Importer, TaskSpec, TaskSpecIx, TriggerStrategy};
use crate::task_path;

impl Step<'_> {
    /// The run begins: its root DAG runs.
    pub(super) fn start(&mut self) {
        if self.run.phase != RunPhase::New {
            return;
        }
        self.run.phase = RunPhase::Running;
        let id = TaskId::derive(self.run.facts.run, "root");
        let component = self.run.plan.root;
        let root = Task::pending(id, "root".to_owned(), None, Role::Root, component, self.now);
        let ix = self.add(root);
        let inputs = self.run.root_inputs();
        self.change(ix).inputs = inputs;
        self.begin(ix);
    }

    /// Starts the tasks of a DAG, those that wait for nothing at once.
    pub(super) fn start_dag(&mut self, ix: TaskIx) {
        let plan = Arc::clone(&self.run.plan);
        let Body::Dag(dag) = &plan.component(self.task(ix).component).body else {
            return;
        };
        self.enter(ix, TaskState::Running);
        // The children lie one behind another in the order of the plan: the task of an index is `first +
        // index`.
        let first = match self.task(ix).children {
            Some(first) => self.reset_children(first, dag),
            None => self.add_children(ix, dag),
        };
        let task = self.change(ix);
        task.children = Some(first);
        task.open_children = count(dag.tasks.len());
        for (index, spec) in (0u32..).zip(&dag.tasks) {
            if spec.upstream.is_empty() {
                self.work.push_back(Work::Ready(TaskIx(first.0 + index)));
            }
        }
        // No child will end it.
        if dag.tasks.is_empty() {
            self.end_dag(ix);
        }
    }

    fn add_children(&mut self, parent: TaskIx, dag: &Dag) -> TaskIx {
        let run = self.run.facts.run;
        let prefix = self.task(parent).path.clone();
        let first = TaskIx(count(self.run.tasks.len()));
        for (index, spec) in (0u32..).zip(&dag.tasks) {
            let path = task_path::child(&prefix, &spec.key);
            let id = TaskId::derive(run, &path);
            let role = Role::Task(TaskSpecIx(index));
            let mut task = Task::pending(id, path, Some(parent), role, spec.component, self.now);
            task.waiting = count(spec.upstream.len());
            self.add(task);
        }
        first
    }

    /// A DAG that runs for a second time takes its tasks as new ones.
    fn reset_children(&mut self, first: TaskIx, dag: &Dag) -> TaskIx {
        for (index, spec) in (0u32..).zip(&dag.tasks) {
            let child = TaskIx(first.0 + index);
            self.reset(child);
            self.change(child).waiting = count(spec.upstream.len());
        }
        first
    }

    /// Everything that the task waits for has ended: it starts, or it never will.
    pub(super) fn ready(&mut self, ix: TaskIx) {
        if self.task(ix).state != TaskState::Pending || !self.is_running() {
            return;
        }
        let plan = Arc::clone(&self.run.plan);
        let Some((parent, spec)) = self.run.parent_and_spec(&plan, ix) else {
            return;
        };
        // KFP's order: first the strategy, then the inputs, and only then the condition, which sees
        // resolved inputs.
        if spec.strategy == TriggerStrategy::AllSucceeded && !self.upstream_succeeded(parent, spec)
        {
            self.enter(ix, TaskState::Omitted);
            return;
        }
        match self.run.resolve_inputs(ix, parent, spec) {
            Ok(inputs) => self.change(ix).inputs = inputs,
            Err(error) => return self.fail(ix, error),
        }
        if let Some(condition) = &spec.condition {
            match condition.condition(&self.run.condition_inputs(ix)) {
                Ok(true) => {}
                Ok(false) => return self.enter(ix, TaskState::NotTriggered),
                Err(error) => {
                    let message = format!("condition cannot be evaluated: {error}");
                    return self.fail(ix, TaskError::new("Condition", message));
                }
            }
        }
        match &spec.iterator {
            Some(iterator) => self.start_loop(ix, iterator),
            None => self.begin(ix),
        }
    }

    fn upstream_succeeded(&self, parent: TaskIx, spec: &TaskSpec) -> bool {
        let Some(first) = self.task(parent).children else {
            return false;
        };
        spec.upstream
            .iter()
            .all(|up| self.task(TaskIx(first.0 + up.0)).state.succeeded())
    }

    /// Inputs are there, nothing stands in the way: the body runs.
    pub(super) fn begin(&mut self, ix: TaskIx) {
        let plan = Arc::clone(&self.run.plan);
        match &plan.component(self.task(ix).component).body {
            Body::Dag(_) => self.start_dag(ix),
            Body::Importer(importer) if importer.download_to_workspace => {
                // The artifact is made when its content is there. What cannot be copied fails before it
                // takes a slot.
                let request = self.run.import_request(ix, importer);
                match request.and_then(|(uri, _)| self.run.workspace_copy_path(&uri)) {
                    Ok(_) => self.launch(ix),
                    Err(error) => self.fail(ix, error),
                }
            }
            Body::Importer(importer) => {
                self.change(ix).attempt += 1;
                self.enter(ix, TaskState::Running);
                self.import(ix, importer);
            }
            Body::Container(_) => self.queue(ix),
        }
    }

    /// Asks for the artifact of an importer that runs.
    pub(super) fn import(&mut self, ix: TaskIx, importer: &Importer) {
        match self.run.import_request(ix, importer) {
            Ok((uri, metadata)) => self.effect(Effect::Import {
                task: ix,
                uri,
                metadata,
            }),
            Err(error) => self.fail(ix, error),
        }
    }

    /// The next attempt may start as soon as there is a slot.
    pub(super) fn launch(&mut self, ix: TaskIx) {
        let task = self.change(ix);
        task.attempt += 1;
        task.error = None;
        let attempt = task.attempt;
        self.enter(ix, TaskState::Queued);
        self.effect(Effect::Launch { task: ix, attempt });
    }

    pub(super) fn imported(&mut self, id: TaskId, result: Result<Arc<Artifact>, TaskError>) {
        let Some(ix) = self.run.find(id) else {
            return;
        };
        if self.task(ix).state != TaskState::Running {
            return;
        }
        match result {
            Ok(artifact) => {
                let name = self.run.importer_output(ix);
                self.change(ix)
                    .outputs
                    .artifacts
                    .insert(name, vec![artifact]);
                self.enter(ix, TaskState::Succeeded);
            }
            Err(error) => self.fail(ix, error),
        }
    }

    pub(super) fn slot_granted(&mut self, id: TaskId, attempt: u32) {
        let Some(ix) = self.run.find(id) else {
            return;
        };
        let task = self.task(ix);
        if task.state == TaskState::Queued && task.attempt == attempt {
            self.enter(ix, TaskState::Running);
        }
    }

    /// A task has ended: those that wait for it learn of it, and the DAG or loop it is in.
    pub(super) fn ended(&mut self, ix: TaskIx) {
        let Some(parent) = self.task(ix).parent else {
            return self.end_run(ix);
        };
        match self.task(ix).role {
            Role::Root => {}
            Role::Iteration(_) => self.iteration_ended(parent, ix),
            Role::Task(spec_ix) => {
                self.release_downstream(parent, spec_ix);
                let open = self.task(parent).open_children.saturating_sub(1);
                // `task_mut` and not `change`: the number follows from the children and is not stored,
                // so the parent's row need not be written for each child.
                self.run.task_mut(parent).open_children = open;
                if open == 0 {
                    self.end_dag(parent);
                }
            }
        }
    }

    fn release_downstream(&mut self, parent: TaskIx, spec_ix: TaskSpecIx) {
        let plan = Arc::clone(&self.run.plan);
        let Body::Dag(dag) = &plan.component(self.task(parent).component).body else {
            return;
        };
        let Some(first) = self.task(parent).children else {
            return;
        };
        for next in &dag.task(spec_ix).downstream {
            let child = TaskIx(first.0 + next.0);
            // `waiting` follows from the upstream tasks and is not stored either.
            let task = self.run.task_mut(child);
            task.waiting = task.waiting.saturating_sub(1);
            if task.waiting == 0 {
                self.work.push_back(Work::Ready(child));
            }
        }
    }

    /// All tasks of a DAG have ended.
    pub(super) fn end_dag(&mut self, ix: TaskIx) {
        if self.task(ix).state.ended() {
            return;
        }
        let outputs = self.run.dag_outputs(ix);
        let (failed, canceled) = self.run.children_verdict(ix);
        self.change(ix).outputs = outputs;
        // Tasks that were skipped (omitted, not triggered) do not fail their DAG. One that failed does,
        // whatever succeeded after it, exit tasks included.
        let state = match (failed, canceled) {
            (true, _) => TaskState::Failed,
            (false, true) => TaskState::Canceled,
            (false, false) => TaskState::Succeeded,
        };
        self.enter(ix, state);
    }

    fn end_run(&mut self, root: TaskIx) {
        let end = match (self.run.phase, self.task(root).state) {
            (RunPhase::Canceling, _) => RunEnd::Canceled,
            (RunPhase::Running, TaskState::Succeeded) => RunEnd::Succeeded,
            // The root did not succeed, or the run's time was up, whatever became of its root.
            _ => RunEnd::Failed,
        };
        if self.run.phase == RunPhase::Expiring {
            let message = "the run took longer than its activeDeadlineSeconds".to_owned();
            self.change(root).error = Some(TaskError::new("Timeout", message));
        }
        self.run.phase = RunPhase::Ended(end);
    }
}

/// Plans are limited to far fewer tasks than fit into 32 bits.
pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
