//! What the stored tasks of a run are in its plan: kinds, names, and which wait for which.

use std::collections::HashMap;

use ferroflow_types::TaskId;

use crate::engine::TaskRow;
use crate::plan::{Body, ComponentIx, Dag, Plan, TaskSpec};
use crate::task_path;

/// What a task of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// The run itself.
    Root,
    /// One iteration of a loop.
    Iteration,
    /// A loop over items.
    Loop,
    /// A DAG that starts only where a condition holds.
    Condition,
    /// A DAG.
    Dag,
    /// A command.
    Container,
    /// Content that is taken over.
    Importer,
}

/// One task in the outline of its run.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOutline<'r> {
    /// The task as it is stored.
    pub row: &'r TaskRow,
    /// What it is; none where the plan knows no such task.
    pub kind: Option<TaskKind>,
    /// Its key, or the number of the iteration.
    pub name: String,
    /// What people call it.
    pub display_name: String,
    /// The tasks beside it that it waits for.
    pub upstream: Vec<TaskId>,
    /// How many iterations a loop has so far.
    pub iterations: Option<u32>,
}

/// What a task is in the plan.
struct PlannedTask<'p> {
    kind: TaskKind,
    /// The plan's task, none for the root and iterations.
    task: Option<&'p TaskSpec>,
    component: ComponentIx,
    /// Keys of the siblings that it waits for.
    upstream: Vec<&'p str>,
}

/// The tasks of a run, in the order of `rows`: all of them, parents before children.
pub fn outline<'r>(plan: &Plan, rows: &'r [TaskRow]) -> Vec<TaskOutline<'r>> {
    let paths: HashMap<TaskId, &str> = rows.iter().map(|row| (row.id, &*row.path)).collect();
    let mut planned_tasks: HashMap<TaskId, PlannedTask<'_>> = HashMap::new();
    let mut siblings: HashMap<(TaskId, &str), TaskId> = HashMap::new();
    let mut iterations: HashMap<TaskId, u32> = HashMap::new();
    for row in rows {
        let Some(parent) = row.parent else {
            planned_tasks.insert(row.id, without_task(TaskKind::Root, plan.root));
            continue;
        };
        // A task that the plan does not know is listed under its path, without a kind.
        let Some(enclosing) = planned_tasks.get(&parent) else {
            continue;
        };
        let planned_task = if row.iteration.is_some() {
            *iterations.entry(parent).or_default() += 1;
            without_task(TaskKind::Iteration, enclosing.component)
        } else {
            let path = paths.get(&parent).copied().unwrap_or_default();
            let Some(planned_task) = find_planned(plan, enclosing.component, path, &row.path)
            else {
                continue;
            };
            if let Some(task) = planned_task.task {
                siblings.insert((parent, task.key.as_str()), row.id);
            }
            planned_task
        };
        planned_tasks.insert(row.id, planned_task);
    }
    let outlined = rows.iter().map(|row| {
        let planned_task = planned_tasks.get(&row.id);
        let task = planned_task.and_then(|planned_task| planned_task.task);
        let name = task.map_or_else(|| task_path::name(&row.path), |task| task.key.clone());
        let upstream = planned_task
            .into_iter()
            .flat_map(|planned_task| &planned_task.upstream);
        let upstream = upstream.filter_map(|key| siblings.get(&(row.parent?, *key)).copied());
        TaskOutline {
            row,
            kind: planned_task.map(|planned_task| planned_task.kind),
            display_name: task.map_or_else(|| name.clone(), |task| task.display_name.clone()),
            name,
            upstream: upstream.collect(),
            iterations: iterations.get(&row.id).copied(),
        }
    });
    outlined.collect()
}

/// What has no task of its own in the plan.
fn without_task<'p>(kind: TaskKind, component: ComponentIx) -> PlannedTask<'p> {
    PlannedTask {
        kind,
        task: None,
        component,
        upstream: Vec::new(),
    }
}

/// The task at `path` in the DAG that `component` is, whose own path is `parent_path`.
fn find_planned<'p>(
    plan: &'p Plan,
    component: ComponentIx,
    parent_path: &str,
    path: &str,
) -> Option<PlannedTask<'p>> {
    let Body::Dag(dag) = &plan.component(component).body else {
        return None;
    };
    let task = task_at(dag, parent_path, path)?;
    let upstream = task.upstream.iter();
    Some(PlannedTask {
        kind: kind(plan, task),
        task: Some(task),
        component: task.component,
        upstream: upstream.map(|up| dag.task(*up).key.as_str()).collect(),
    })
}

fn task_at<'p>(dag: &'p Dag, parent_path: &str, path: &str) -> Option<&'p TaskSpec> {
    let find = |key: &str| {
        // `Dag::tasks` is ordered by key.
        let index = dag
            .tasks
            .binary_search_by(|task| task.key.as_str().cmp(key));
        index.ok().map(|at| &dag.tasks[at])
    };
    let key = path.strip_prefix(parent_path)?.strip_prefix('.')?;
    // Paths of earlier releases have the key as it is.
    find(&task_path::name(path))
        .filter(|task| task_path::child(parent_path, &task.key) == path)
        .or_else(|| find(key))
}

fn kind(plan: &Plan, task: &TaskSpec) -> TaskKind {
    match &plan.component(task.component).body {
        _ if task.iterator.is_some() => TaskKind::Loop,
        Body::Dag(_) if task.is_conditional() => TaskKind::Condition,
        Body::Dag(_) => TaskKind::Dag,
        Body::Container(_) => TaskKind::Container,
        Body::Importer(_) => TaskKind::Importer,
    }
}
