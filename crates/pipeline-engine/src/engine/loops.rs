//! `ParallelFor`: one iteration per item, some at a time.

use std::sync::Arc;

use ferroflow_types::TaskId;
use serde_json::Value;

use super::flow::count;
use super::task::{LoopProgress, Role, Task, TaskError, TaskIx, TaskState};
use super::{RunState, Step};
use crate::budget::Budget;
use crate::plan::{Body, LoopItems, LoopSpec};
use crate::{placeholder, values};

/// How many iterations of a loop without a limit are under way at once. Iterations cannot see one
/// another, so a window changes nothing but the memory of very long loops.
const DEFAULT_PARALLELISM: usize = 512;

/// More items than this are refused: each is at least one process.
pub(super) const ITEMS_MAX: usize = 100_000;

impl Step<'_> {
    /// The loop's inputs are there: its first iterations start.
    pub(super) fn start_loop(&mut self, ix: TaskIx, spec: &LoopSpec) {
        let (items, refusal) = match self.run.loop_items(ix, spec) {
            Ok(items) => (items, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let iterations = self.renew_iterations(ix, items.len());
        let progress = LoopProgress {
            items,
            iterations,
            ..LoopProgress::default()
        };
        self.change(ix).progress = Some(Box::new(progress));
        if let Some(error) = refusal {
            return self.fail(ix, error);
        }
        self.enter(ix, TaskState::Running);
        self.advance_loop(ix);
    }

    /// Opens the iterations of an earlier start, for `count` items, and omits those beyond. Ids follow from
    /// paths, so new tasks would have the ids of these.
    fn renew_iterations(&mut self, ix: TaskIx, count: usize) -> Vec<TaskIx> {
        let former = self.change(ix).progress.take();
        let iterations = former.map(|former| former.iterations).unwrap_or_default();
        for (number, &iteration) in iterations.iter().enumerate() {
            self.reset(iteration);
            if number >= count {
                self.enter(iteration, TaskState::Omitted);
            }
        }
        iterations
    }

    /// Starts as many iterations as may run, ends the loop when none is left.
    pub(super) fn advance_loop(&mut self, ix: TaskIx) {
        if self.task(ix).state.ended() {
            return;
        }
        let plan = Arc::clone(&self.run.plan);
        let limit = self
            .run
            .parent_and_spec(&plan, ix)
            .and_then(|(_, spec)| spec.iterator.as_ref()?.parallelism)
            .map_or(DEFAULT_PARALLELISM, |limit| limit.get() as usize);
        while let Some(number) = self.next_iteration(ix, limit) {
            self.start_iteration(ix, number);
        }
        let Some(progress) = &self.task(ix).progress else {
            return;
        };
        // After a failed iteration no further one starts, as upstream; those under way end first.
        let is_finished =
            progress.failed || progress.started == progress.items.len() || !self.is_running();
        if progress.open == 0 && is_finished {
            self.end_loop(ix);
        }
    }

    fn next_iteration(&self, ix: TaskIx, limit: usize) -> Option<usize> {
        let progress = self.task(ix).progress.as_ref()?;
        let more = progress.started < progress.items.len() && progress.open < limit;
        (more && !progress.failed && self.is_running()).then_some(progress.started)
    }

    fn start_iteration(&mut self, ix: TaskIx, number: usize) {
        let existing = self
            .task(ix)
            .progress
            .as_ref()
            .and_then(|progress| progress.iterations.get(number).copied());
        let iteration = if let Some(iteration) = existing {
            // It may have been cancelled while it waited.
            self.reset(iteration);
            iteration
        } else {
            self.add_iteration(ix, count(number))
        };
        // Progress is not stored, as it follows from the iterations: the loop's row stays as it is.
        if let Some(progress) = self.run.task_mut(ix).progress.as_deref_mut() {
            if existing.is_none() {
                progress.iterations.push(iteration);
            }
            progress.started += 1;
            progress.open += 1;
        }
        self.begin_iteration(ix, iteration);
    }

    /// Runs the body with the item of the iteration, if it is one that the body takes.
    pub(super) fn begin_iteration(&mut self, ix: TaskIx, iteration: TaskIx) {
        match self.run.iteration_inputs(ix, iteration) {
            Ok(inputs) => {
                self.change(iteration).inputs = inputs;
                self.begin(iteration);
            }
            Err(error) => self.fail(iteration, error),
        }
    }

    fn add_iteration(&mut self, ix: TaskIx, number: u32) -> TaskIx {
        let parent = self.task(ix);
        let path = format!("{}.{number}", parent.path);
        let id = TaskId::derive(self.run.facts.run, &path);
        let role = Role::Iteration(number);
        let task = Task::pending(id, path, Some(ix), role, parent.component, self.now);
        self.add(task)
    }

    pub(super) fn iteration_ended(&mut self, ix: TaskIx, iteration: TaskIx) {
        let task = self.task(iteration);
        let (&Role::Iteration(number), state) = (&task.role, task.state) else {
            return;
        };
        if let Some(progress) = self.run.task_mut(ix).progress.as_deref_mut() {
            // One of an earlier start may be omitted or cancelled before this start comes to it.
            if number as usize >= progress.started {
                return;
            }
            progress.open = progress.open.saturating_sub(1);
            progress.failed |= state == TaskState::Failed;
        }
        self.advance_loop(ix);
    }

    /// After a failure, iterations of an earlier start may be left that this one did not come to.
    fn omit_waiting_iterations(&mut self, ix: TaskIx) {
        let iterations = self.task(ix).progress.as_ref();
        let iterations = iterations.map(|progress| progress.iterations.clone());
        for iteration in iterations.unwrap_or_default() {
            if self.task(iteration).state == TaskState::Pending {
                self.enter(iteration, TaskState::Omitted);
            }
        }
    }

    fn end_loop(&mut self, ix: TaskIx) {
        self.omit_waiting_iterations(ix);
        let outputs = self.run.loop_outputs(ix);
        // Each loop around a value wraps it in one more list, so a value that was accepted may now nest
        // too deep.
        for (name, value) in &outputs.parameters {
            if let Err(problem) = values::check_nesting(value) {
                let message = format!("output {name} of the loop: {problem}");
                return self.fail(ix, TaskError::new("Output", message));
            }
        }
        let progress = self.task(ix).progress.as_deref();
        let failed = progress.is_some_and(|progress| progress.failed);
        self.change(ix).outputs = outputs;
        let state = if failed {
            TaskState::Failed
        } else if self.is_running() {
            TaskState::Succeeded
        } else {
            TaskState::Canceled
        };
        self.enter(ix, state);
    }
}

impl RunState {
    /// What the loop iterates over; an artifact loop has one null per artifact.
    pub(super) fn loop_items(&self, ix: TaskIx, spec: &LoopSpec) -> Result<Vec<Value>, TaskError> {
        let inputs = &self.task(ix).inputs;
        let wrong = |message: String| TaskError::new("Input", message);
        let items = match &spec.items {
            LoopItems::Raw(items) => {
                let facts = self.task_facts(ix);
                let budget = Budget::new(self.facts.values);
                let resolve = |item| {
                    placeholder::resolve_constant(item, &facts, &inputs.parameters, &budget)
                        .map_err(|error| wrong(format!("loop item: {error}")))
                };
                items.iter().map(resolve).collect::<Result<Vec<_>, _>>()?
            }
            LoopItems::Parameter(name) => {
                let value = inputs.parameters.get(name).ok_or_else(|| {
                    wrong(format!("the loop iterates over {name}, which has no value"))
                })?;
                list_of(value).ok_or_else(|| {
                    let value = values::excerpt(value);
                    wrong(format!(
                        "the loop iterates over {name}, which is not a list: {value}"
                    ))
                })?
            }
            LoopItems::Artifact(name) => {
                let artifacts = inputs.artifacts.get(name).map_or(0, Vec::len);
                vec![Value::Null; artifacts]
            }
        };
        for (number, item) in items.iter().enumerate() {
            values::check_nesting(item)
                .map_err(|problem| wrong(format!("item {number} of the loop: {problem}")))?;
        }
        if items.len() > ITEMS_MAX {
            let found = items.len();
            return Err(wrong(format!(
                "the loop has {found} items, more than {ITEMS_MAX}"
            )));
        }
        Ok(items)
    }

    /// The loop of the plan that this task is.
    pub(super) fn loop_spec(&self, ix: TaskIx) -> Option<&LoopSpec> {
        match self.task(ix).role {
            Role::Task(_) => self.spec(ix)?.iterator.as_ref(),
            Role::Root | Role::Iteration(_) => None,
        }
    }

    /// Whether a task of this role runs a DAG of its own (not a loop over one).
    pub(super) fn runs_dag(&self, ix: TaskIx) -> bool {
        self.loop_spec(ix).is_none() && matches!(self.component(ix).body, Body::Dag(_))
    }
}

fn list_of(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items.clone()),
        // KFP lets a loop iterate over the text of a JSON list as well.
        Value::String(text) => match serde_json::from_str(text).ok()? {
            Value::Array(items) => Some(items),
            _ => None,
        },
        _ => None,
    }
}
