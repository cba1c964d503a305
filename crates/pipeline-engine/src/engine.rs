//! The engine: how a run gets from its plan to its end.
//!
//! ```text
//! event ──► RunState::decide ──► Decision { changed tasks, transitions, effects }
//!             (pure, no I/O)        │ one transaction            │ performed after it,
//!                                   ▼                            ▼ again after a crash
//!                                 store                        worker ──► next event
//! ```
//!
//! `decide` is the only way a run changes. The same events in the same order give the same state.
//! A late or repeated event changes nothing. The cost of a decision grows with what it changes, not
//! with the size of the run. If the transaction fails, the state is dropped and read again.
//!
//! | file | holds |
//! |---|---|
//! | `task` | what is known of one task |
//! | `flow` | a task becomes ready, runs, ends; its DAG ends |
//! | `loops` | `ParallelFor` |
//! | `inputs`, `outputs` | values along the edges |
//! | `causes` | why a task or the run failed |
//! | `caching` | whether a command has to run |
//! | `attempts` | results of commands, whether a failed attempt is retried, cancellation |
//! | `resume` | a run that failed starts again where it failed |
//! | `restore` | the state after a crash |

mod attempts;
mod caching;
mod causes;
mod flow;
pub(crate) mod inputs;
mod loops;
mod outputs;
mod restore;
mod resume;
pub mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use ferroflow_types::{Namespace, RunId, TaskId, Timestamp, ValueLimit};
use serde_json::Value;

use crate::artifact::Artifact;
use crate::fingerprint::CacheKey;
use crate::placeholder::TaskFacts;
use crate::plan::{Body, Component, Plan, TaskSpec};
use task::{Change, Role, Task, TaskError, TaskIx, TaskState, Values};

pub use caching::{CacheAnswer, CachedResult};
pub use restore::{InconsistentTasks, TaskRow};

/// What a run is, apart from its tasks.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// Its id.
    pub run: RunId,
    /// The tenant that it is in.
    pub namespace: Namespace,
    /// `<pipeline name>-<suffix>`, what KFP calls the resource name.
    pub resource_name: String,
    /// The user's name for it.
    pub display_name: String,
    /// Parameters given, macros expanded, defaults not filled in.
    pub parameters: BTreeMap<String, Value>,
    /// Where artifacts go.
    pub pipeline_root: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// How large the values of its tasks may be.
    pub values: ValueLimit,
    /// The folder that its tasks share, when the plan asks for one.
    pub workspace_path: Option<String>,
    /// The claim that the folder is, where it is one.
    pub workspace_claim: Option<String>,
    /// Whether results may be reused at all.
    pub caching: bool,
    /// Whether the runtime can give what only Kubernetes has (secrets, claims, …).
    pub kubernetes: bool,
    /// Whether the runtime can run what an image runs by itself.
    pub entry_points: bool,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunPhase {
    /// Created, nothing started.
    New,
    /// Tasks run.
    Running,
    /// Stopping because somebody asked.
    Canceling,
    /// Stopping because its time is up.
    Expiring,
    /// Over.
    Ended(RunEnd),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// No task failed.
    Succeeded,
    /// A task failed, or the time was up.
    Failed,
    /// Somebody cancelled it.
    Canceled,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run may begin.
    Start,
    /// The cache answered.
    CacheAnswered {
        /// The task that asked.
        task: TaskId,
        /// What was found.
        answer: CacheAnswer,
    },
    /// An importer's artifact was found or made.
    Imported {
        /// The importer.
        task: TaskId,
        /// The artifact, or why there is none.
        result: Result<Arc<Artifact>, TaskError>,
    },
    /// A slot is free and the command is about to start.
    SlotGranted {
        /// The task that gets it.
        task: TaskId,
        /// Its attempt.
        attempt: u32,
    },
    /// A command that has not begun waits for something, or no longer.
    Noted {
        /// The task.
        task: TaskId,
        /// Its attempt.
        attempt: u32,
        /// What for; empty for nothing.
        note: String,
    },
    /// A command does not get all that it asks for.
    Remarked {
        /// The task.
        task: TaskId,
        /// Its attempt.
        attempt: u32,
        /// What it does not get, a sentence each.
        remarks: Vec<String>,
    },
    /// A command ended.
    AttemptEnded {
        /// The task.
        task: TaskId,
        /// Its attempt.
        attempt: u32,
        /// What came of it.
        result: Result<Values, AttemptFailure>,
    },
    /// The wait before a retry is over.
    RetryDue {
        /// The task.
        task: TaskId,
    },
    /// Somebody asked to stop.
    Cancel,
    /// The run's time is up.
    DeadlinePassed,
    /// Somebody asked to run again what failed.
    Retry,
}

/// A command that did not end well.
#[derive(Debug, Clone)]
pub struct AttemptFailure {
    /// Why, for people.
    pub error: TaskError,
    /// Whether the launcher vanished: nobody knows how the command ended.
    pub lost: bool,
}

/// What the worker does once the decision is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Look for an earlier result; answer with [`Event::CacheAnswered`].
    LookUpCache {
        /// The task that asks.
        task: TaskIx,
        /// What it is looked up by.
        key: CacheKey,
    },
    /// Find or make the artifact of an importer; answer with [`Event::Imported`].
    Import {
        /// The importer.
        task: TaskIx,
        /// Where the artifact is.
        uri: String,
        /// Its metadata, placeholders resolved.
        metadata: serde_json::Map<String, Value>,
    },
    /// Run the command when a slot is free: [`Event::SlotGranted`], then [`Event::AttemptEnded`].
    Launch {
        /// The task.
        task: TaskIx,
        /// Its attempt.
        attempt: u32,
    },
    /// Stop the command; [`Event::AttemptEnded`] follows.
    Stop {
        /// The task.
        task: TaskIx,
        /// Its attempt.
        attempt: u32,
    },
    /// Send [`Event::RetryDue`] then.
    WakeAt {
        /// The task.
        task: TaskIx,
        /// When.
        at: Timestamp,
    },
}

/// A change of a task that the world is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The task.
    pub task: TaskIx,
    /// What it came to.
    pub state: TaskState,
    /// In which attempt.
    pub attempt: u32,
}

/// What a decision changed and asks for.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// Tasks whose stored form is out of date, each once.
    pub changed: Vec<TaskIx>,
    /// State changes in the order they happened.
    pub transitions: Vec<Transition>,
    /// Tasks that tell something else than before of what they wait for.
    pub noted: Vec<TaskIx>,
    /// What to do once all that is stored.
    pub effects: Vec<Effect>,
    /// The run's phase is another one than before.
    pub phase_changed: bool,
}

/// All that is known of a run while it is driven.
#[derive(Debug, Clone)]
pub struct RunState {
    plan: Arc<Plan>,
    facts: RunFacts,
    phase: RunPhase,
    tasks: Vec<Task>,
    by_id: HashMap<TaskId, TaskIx>,
}

/// What is left to do inside one decision; a queue, so that depth costs no stack.
enum Work {
    /// Everything the task waits for has ended.
    Ready(TaskIx),
    /// The task has just ended.
    Ended(TaskIx),
}

/// One decision in the making.
struct Step<'a> {
    run: &'a mut RunState,
    now: Timestamp,
    work: VecDeque<Work>,
    dirty: HashSet<TaskIx>,
    decision: Decision,
}

impl RunState {
    /// A run of which nothing has started.
    pub(crate) fn new(plan: Arc<Plan>, facts: RunFacts) -> Self {
        Self {
            plan,
            facts,
            phase: RunPhase::New,
            tasks: Vec::new(),
            by_id: HashMap::new(),
        }
    }

    /// Takes note of what happened, decides what follows.
    pub fn decide(&mut self, event: Event, now: Timestamp) -> Decision {
        let phase = self.phase;
        let mut step = Step {
            dirty: HashSet::new(),
            run: self,
            now,
            work: VecDeque::new(),
            decision: Decision::default(),
        };
        step.apply(event);
        step.process_queue();
        let mut decision = step.decision;
        decision.phase_changed = self.phase != phase;
        decision
    }

    /// Where the run stands.
    pub fn phase(&self) -> RunPhase {
        self.phase
    }

    /// What the run is.
    pub fn facts(&self) -> &RunFacts {
        &self.facts
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The task at `ix`.
    pub fn task(&self, ix: TaskIx) -> &Task {
        &self.tasks[ix.0 as usize]
    }

    fn task_mut(&mut self, ix: TaskIx) -> &mut Task {
        &mut self.tasks[ix.0 as usize]
    }

    /// The task with this id.
    pub fn find(&self, id: TaskId) -> Option<TaskIx> {
        self.by_id.get(&id).copied()
    }

    /// Every task, root first.
    pub fn tasks(&self) -> impl Iterator<Item = (TaskIx, &Task)> {
        (0u32..).map(TaskIx).zip(&self.tasks)
    }

    /// What a task executes.
    pub fn component(&self, ix: TaskIx) -> &Component {
        self.plan.component(self.task(ix).component)
    }

    /// The specification of a task in the plan; that of its loop for an iteration.
    pub(crate) fn spec(&self, ix: TaskIx) -> Option<&TaskSpec> {
        let task = self.task(ix);
        let parent = task.parent?;
        match task.role {
            Role::Root => None,
            Role::Iteration(_) => self.spec(parent),
            Role::Task(spec_ix) => match &self.component(parent).body {
                Body::Dag(dag) => Some(dag.task(spec_ix)),
                Body::Container(_) | Body::Importer(_) => None,
            },
        }
    }

    /// The task's key in its DAG, `root` for the run itself.
    pub fn task_name(&self, ix: TaskIx) -> &str {
        self.spec(ix).map_or("root", |spec| spec.key.as_str())
    }

    /// What placeholders may say about a task.
    pub(crate) fn task_facts(&self, ix: TaskIx) -> TaskFacts {
        let facts = &self.facts;
        TaskFacts {
            run_id: facts.run.to_string(),
            run_name: facts.resource_name.clone(),
            display_name: facts.display_name.clone(),
            task_name: self.task_name(ix).to_owned(),
            task_id: self.task(ix).id.to_string(),
            pipeline_root: facts.pipeline_root.clone(),
            create_time: facts.created_at.to_string(),
            // The engine knows no due time; upstream falls back to the creation time as well.
            schedule_time: facts.created_at.to_string(),
            workspace_path: facts.workspace_path.clone(),
        }
    }
}

impl Step<'_> {
    fn apply(&mut self, event: Event) {
        // Timers, late answers and repeated reports still come after the end; only a retry opens a run
        // again.
        if matches!(self.run.phase, RunPhase::Ended(_)) && !matches!(event, Event::Retry) {
            return;
        }
        match event {
            Event::Start => self.start(),
            Event::CacheAnswered { task, answer } => self.cache_answered(task, answer),
            Event::Imported { task, result } => self.imported(task, result),
            Event::SlotGranted { task, attempt } => self.slot_granted(task, attempt),
            Event::Noted {
                task,
                attempt,
                note,
            } => self.set_note(task, attempt, note),
            Event::Remarked {
                task,
                attempt,
                remarks,
            } => self.set_remarks(task, attempt, remarks),
            Event::AttemptEnded {
                task,
                attempt,
                result,
            } => {
                self.attempt_ended(task, attempt, result);
            }
            Event::RetryDue { task } => self.retry_due(task),
            Event::Cancel => self.stop_all(RunPhase::Canceling),
            Event::DeadlinePassed => self.stop_all(RunPhase::Expiring),
            Event::Retry => self.retry_run(),
        }
    }

    fn process_queue(&mut self) {
        while let Some(work) = self.work.pop_front() {
            match work {
                Work::Ready(ix) => self.ready(ix),
                Work::Ended(ix) => self.ended(ix),
            }
        }
    }

    fn task(&self, ix: TaskIx) -> &Task {
        self.run.task(ix)
    }

    /// The task for writing; it will be stored.
    fn change(&mut self, ix: TaskIx) -> &mut Task {
        if self.dirty.insert(ix) {
            self.decision.changed.push(ix);
        }
        self.run.task_mut(ix)
    }

    fn add(&mut self, task: Task) -> TaskIx {
        let ix = TaskIx(u32::try_from(self.run.tasks.len()).unwrap_or(u32::MAX));
        self.run.by_id.insert(task.id, ix);
        self.run.tasks.push(task);
        self.change(ix);
        ix
    }

    /// Brings a task to `state` and tells of it.
    fn enter(&mut self, ix: TaskIx, state: TaskState) {
        let now = self.now;
        let task = self.change(ix);
        // A command that asked the cache is queued already: its launch is no second transition.
        if task.state == state {
            return;
        }
        task.state = state;
        task.note.clear();
        task.history.push(Change { at: now, state });
        if state == TaskState::Running && task.started_at.is_none() {
            task.started_at = Some(now);
        }
        let attempt = task.attempt;
        if state.ended() {
            task.finished_at = Some(now);
            task.retry_at = None;
            self.work.push_back(Work::Ended(ix));
        }
        self.decision.transitions.push(Transition {
            task: ix,
            state,
            attempt,
        });
    }

    fn fail(&mut self, ix: TaskIx, error: TaskError) {
        self.change(ix).error = Some(error);
        self.enter(ix, TaskState::Failed);
    }

    fn effect(&mut self, effect: Effect) {
        self.decision.effects.push(effect);
    }

    /// Whether tasks may still start.
    fn is_running(&self) -> bool {
        self.run.phase == RunPhase::Running
    }
}
