//! The state of a run after a crash, out of what was stored.
//!
//! Only facts are stored. What follows from them (who waits for whom, how many children are open,
//! how far a loop is) is computed again here, and what was decided but perhaps not done is asked
//! for again: runtimes take a repeated request for the same one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use ferroflow_types::{TaskId, Timestamp};
use serde_json::Value;

use super::flow::count;
use super::task::{
    CacheNote, Change, LoopProgress, Role, Task, TaskError, TaskIx, TaskState, Values,
};
use super::{Effect, RunFacts, RunPhase, RunState};
use crate::plan::{Body, ComponentIx, Plan, TaskSpecIx};
use crate::task_path;

/// A stored task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// Derived from the run and the path.
    pub id: TaskId,
    /// Task keys and iteration numbers from `root`, joined by dots.
    pub path: String,
    /// The DAG or loop that it is in.
    pub parent: Option<TaskId>,
    /// The number of the iteration that it is.
    pub iteration: Option<u32>,
    /// Where it stands.
    pub state: TaskState,
    /// The number of the attempt.
    pub attempt: u32,
    /// Failed attempts that count.
    pub failures: u32,
    /// Attempts that vanished.
    pub lost: u32,
    /// Resolved inputs.
    pub inputs: Values,
    /// Outputs.
    pub outputs: Values,
    /// Why it failed.
    pub error: Option<TaskError>,
    /// What the cache said.
    pub cache: Option<CacheNote>,
    /// Why its command has not begun.
    pub note: String,
    /// What it asks for and does not get.
    pub remarks: Vec<String>,
    /// When it became known.
    pub created_at: Timestamp,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the next attempt is due.
    pub retry_at: Option<Timestamp>,
    /// Each state it was in.
    pub history: Vec<Change>,
}

/// Stored tasks that do not fit the plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stored tasks do not fit the plan: {0} is missing")]
pub struct InconsistentTasks(String);

/// The path of a task: the one that an earlier release gave it, if it is stored under that.
fn stored_path(rows: &HashMap<String, TaskRow>, prefix: &str, key: &str) -> String {
    let path = task_path::child(prefix, key);
    let earlier = task_path::unescaped_child(prefix, key);
    if !rows.contains_key(&path) && rows.contains_key(&earlier) {
        return earlier;
    }
    path
}

impl RunState {
    /// The state that `rows` tell of, and what has to be done (again) for it to go on.
    pub fn restore(
        plan: Arc<Plan>,
        facts: RunFacts,
        phase: RunPhase,
        rows: Vec<TaskRow>,
    ) -> Result<(Self, Vec<Effect>), InconsistentTasks> {
        let mut run = Self::new(plan, facts);
        run.phase = phase;
        if rows.is_empty() {
            return Ok((run, Vec::new()));
        }
        let mut rows: HashMap<String, TaskRow> = rows
            .into_iter()
            .map(|row| (row.path.clone(), row))
            .collect();
        let root = run.plan.root;
        let root = run.restore_task(&mut rows, "root".to_owned(), None, Role::Root, root)?;
        let mut open = VecDeque::from([root]);
        while let Some(ix) = open.pop_front() {
            let children = run.restore_children(&mut rows, ix)?;
            open.extend(children);
        }
        let effects = run.effects_to_repeat();
        Ok((run, effects))
    }

    fn restore_task(
        &mut self,
        rows: &mut HashMap<String, TaskRow>,
        path: String,
        parent: Option<TaskIx>,
        role: Role,
        component: ComponentIx,
    ) -> Result<TaskIx, InconsistentTasks> {
        let mut row = rows.remove(&path).ok_or(InconsistentTasks(path))?;
        if let (TaskState::Queued, 0, Some(note)) = (row.state, row.attempt, &mut row.cache) {
            // Former releases stored no `looking`. A queued task that has a note and no attempt waits
            // for the cache.
            note.looking = true;
        }
        let ix = TaskIx(count(self.tasks.len()));
        self.by_id.insert(row.id, ix);
        self.tasks.push(Task {
            id: row.id,
            path: row.path,
            parent,
            role,
            component,
            state: row.state,
            attempt: row.attempt,
            failures: row.failures,
            lost: row.lost,
            inputs: row.inputs,
            outputs: row.outputs,
            error: row.error,
            cache: row.cache,
            note: row.note,
            remarks: row.remarks,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            retry_at: row.retry_at,
            history: row.history,
            children: None,
            open_children: 0,
            waiting: 0,
            progress: None,
        });
        Ok(ix)
    }

    fn restore_children(
        &mut self,
        rows: &mut HashMap<String, TaskRow>,
        ix: TaskIx,
    ) -> Result<Vec<TaskIx>, InconsistentTasks> {
        if self.loop_spec(ix).is_some() {
            return self.restore_loop(rows, ix);
        }
        let plan = Arc::clone(&self.plan);
        let Body::Dag(dag) = &plan.component(self.task(ix).component).body else {
            return Ok(Vec::new());
        };
        let prefix = self.task(ix).path.clone();
        // The tasks of a DAG are stored in one transaction: if the first is there, all are.
        let started = dag
            .tasks
            .first()
            .is_some_and(|spec| rows.contains_key(&stored_path(rows, &prefix, &spec.key)));
        if !started {
            return Ok(Vec::new());
        }
        let mut children = Vec::with_capacity(dag.tasks.len());
        for (index, spec) in (0u32..).zip(&dag.tasks) {
            let path = stored_path(rows, &prefix, &spec.key);
            let role = Role::Task(TaskSpecIx(index));
            children.push(self.restore_task(rows, path, Some(ix), role, spec.component)?);
        }
        for (child, spec) in children.iter().zip(&dag.tasks) {
            let open = spec
                .upstream
                .iter()
                .filter(|up| !self.task(children[up.0 as usize]).state.ended());
            let waiting = count(open.count());
            self.task_mut(*child).waiting = waiting;
        }
        let open = children
            .iter()
            .filter(|child| !self.task(**child).state.ended())
            .count();
        let task = self.task_mut(ix);
        task.children = children.first().copied();
        task.open_children = count(open);
        Ok(children)
    }

    fn restore_loop(
        &mut self,
        rows: &mut HashMap<String, TaskRow>,
        ix: TaskIx,
    ) -> Result<Vec<TaskIx>, InconsistentTasks> {
        let prefix = self.task(ix).path.clone();
        let component = self.task(ix).component;
        let mut iterations = Vec::new();
        // Iterations are made in the order of their numbers: after the first missing one there is none.
        for number in 0u32.. {
            let path = format!("{prefix}.{number}");
            if !rows.contains_key(&path) {
                break;
            }
            let role = Role::Iteration(number);
            iterations.push(self.restore_task(rows, path, Some(ix), role, component)?);
        }
        if self.task(ix).state == TaskState::Pending {
            // After a retry a loop may wait for its inputs once more. Its iterations go on counting their
            // attempts when it starts: a number that was used before names the former attempt.
            let progress = LoopProgress {
                iterations: iterations.clone(),
                ..LoopProgress::default()
            };
            self.task_mut(ix).progress = (!iterations.is_empty()).then(|| Box::new(progress));
            return Ok(iterations);
        }
        let items = self.loop_spec(ix).map(|spec| self.loop_items(ix, spec));
        let is_refused = !matches!(items, Some(Ok(_)));
        let items = match items {
            Some(Ok(items)) => items,
            // Refused when the loop started, which has failed then; or now, as a limit was lowered while it
            // runs, and then its iterations are the last ones.
            Some(Err(_)) | None => vec![Value::Null; iterations.len()],
        };
        // Those of an earlier start wait until this one comes to them, or are omitted.
        let not_begun = |state| matches!(state, TaskState::Pending | TaskState::Omitted);
        let states = iterations
            .iter()
            .take(items.len())
            .map(|&iteration| self.task(iteration).state)
            .take_while(|&state| !not_begun(state));
        let progress = LoopProgress {
            started: states.clone().count(),
            open: states.clone().filter(|state| !state.ended()).count(),
            failed: is_refused || states.clone().any(|state| state == TaskState::Failed),
            items,
            iterations: iterations.clone(),
        };
        self.task_mut(ix).progress = Some(Box::new(progress));
        Ok(iterations)
    }

    /// What the stored state asks for; it may have been done before the crash.
    fn effects_to_repeat(&self) -> Vec<Effect> {
        self.tasks()
            .filter_map(|(ix, _)| self.effect_to_repeat(ix))
            .collect()
    }

    fn effect_to_repeat(&self, ix: TaskIx) -> Option<Effect> {
        let task = self.task(ix);
        let has_attempts = self.loop_spec(ix).is_none()
            && match &self.component(ix).body {
                Body::Container(_) => true,
                Body::Importer(importer) => importer.download_to_workspace,
                Body::Dag(_) => false,
            };
        let attempt = task.attempt;
        // A run that stops starts nothing. What waited was cancelled in the step that began to stop it;
        // commands that ran then may not have been stopped yet.
        if self.phase != RunPhase::Running {
            let running = task.state == TaskState::Running && has_attempts;
            return running.then_some(Effect::Stop { task: ix, attempt });
        }
        match (task.state, &self.component(ix).body) {
            (TaskState::Queued, _) if self.awaits_cache(ix) => Some(Effect::LookUpCache {
                task: ix,
                key: self.cache_key(ix),
            }),
            // A command that runs is asked for again as well: the runtime finds its attempt, reports on
            // it, and starts nothing a second time.
            (TaskState::Queued | TaskState::Running, _) if has_attempts => {
                Some(Effect::Launch { task: ix, attempt })
            }
            (TaskState::Running, Body::Importer(importer)) if self.loop_spec(ix).is_none() => {
                // An importer runs only after its request was resolved, and the same inputs resolve
                // again.
                let (uri, metadata) = self.import_request(ix, importer).ok()?;
                Some(Effect::Import {
                    task: ix,
                    uri,
                    metadata,
                })
            }
            (TaskState::Backoff, _) => Some(Effect::WakeAt {
                task: ix,
                at: task.retry_at.unwrap_or(Timestamp::EPOCH),
            }),
            _ => None,
        }
    }

    /// A task as it is stored.
    pub fn row(&self, ix: TaskIx) -> TaskRow {
        let task = self.task(ix);
        TaskRow {
            id: task.id,
            path: task.path.clone(),
            parent: task.parent.map(|parent| self.task(parent).id),
            iteration: task.iteration(),
            state: task.state,
            attempt: task.attempt,
            failures: task.failures,
            lost: task.lost,
            inputs: task.inputs.clone(),
            outputs: task.outputs.clone(),
            error: task.error.clone(),
            cache: task.cache.clone(),
            note: task.note.clone(),
            remarks: task.remarks.clone(),
            created_at: task.created_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            retry_at: task.retry_at,
            history: task.history.clone(),
        }
    }

    /// Lets go of what only a running command needs, once the tasks are stored.
    pub fn forget_inputs(&mut self, stored: &[TaskIx]) {
        for &ix in stored {
            // DAGs and loops keep their inputs: tasks inside them may still take values from there.
            let is_command = self.loop_spec(ix).is_none()
                && matches!(self.component(ix).body, Body::Container(_));
            if is_command && self.task(ix).state.ended() {
                self.task_mut(ix).inputs.parameters = BTreeMap::new();
                self.task_mut(ix).inputs.artifacts = BTreeMap::new();
            }
        }
    }
}
