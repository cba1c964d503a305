//! Edges: backwards links, cycles, recursion, size, inheritance.

use std::collections::{BTreeMap, BTreeSet};

use super::{Faults, UNFOLDED_MAX};
use crate::plan::{Body, Component, ComponentIx, Dag, TaskSpecIx};

/// Nested DAGs deeper than this are refused.
const DEPTH_MAX: usize = 100;

/// Fills in who waits for whom; a cycle is reported with its tasks in order.
pub(super) fn link(dag: &mut Dag, field: &str, faults: &mut Faults) {
    let edges: Vec<(TaskSpecIx, TaskSpecIx)> = (0u32..)
        .map(TaskSpecIx)
        .zip(&dag.tasks)
        .flat_map(|(to, task)| task.upstream.iter().map(move |from| (*from, to)))
        .collect();
    for (from, to) in edges {
        dag.tasks[from.0 as usize].downstream.push(to);
    }
    if let Some(cycle) = cycle(dag) {
        let names: Vec<_> = cycle
            .iter()
            .map(|task| dag.task(*task).key.as_str())
            .collect();
        faults.add(
            format!("{field}.tasks"),
            format!("tasks wait for one another: {}", names.join(" → ")),
        );
    }
}

/// The tasks of a cycle, the first one repeated at the end.
fn cycle(dag: &Dag) -> Option<Vec<TaskSpecIx>> {
    // Tasks that can be put in order are taken away; what is left has a cycle in it.
    let mut waiting: Vec<usize> = dag.tasks.iter().map(|task| task.upstream.len()).collect();
    let mut ready: Vec<usize> = (0..dag.tasks.len())
        .filter(|at| waiting[*at] == 0)
        .collect();
    let mut ordered = 0;
    while let Some(at) = ready.pop() {
        ordered += 1;
        for next in &dag.tasks[at].downstream {
            let next = next.0 as usize;
            waiting[next] -= 1;
            if waiting[next] == 0 {
                ready.push(next);
            }
        }
    }
    if ordered == dag.tasks.len() {
        return None;
    }
    let is_in_cycle = |task: &TaskSpecIx| waiting[task.0 as usize] > 0;
    let start = (0u32..)
        .map(TaskSpecIx)
        .take(dag.tasks.len())
        .find(is_in_cycle)?;
    // Every task that is left waits for another one that is left, so this walk must come around.
    let (mut path, mut at) = (vec![start], start);
    loop {
        at = *dag.task(at).upstream.iter().find(|up| is_in_cycle(up))?;
        if let Some(begin) = path.iter().position(|task| *task == at) {
            let mut cycle = path.split_off(begin);
            cycle.push(at);
            cycle.reverse();
            return Some(cycle);
        }
        path.push(at);
    }
}

/// A component may not contain itself.
pub(super) fn check_recursion(components: &[Component], faults: &mut Faults) {
    let mut checked = BTreeSet::new();
    visit(
        components,
        ComponentIx(0),
        &mut Vec::new(),
        &mut checked,
        faults,
    );
}

fn visit(
    components: &[Component],
    at: ComponentIx,
    path: &mut Vec<ComponentIx>,
    checked: &mut BTreeSet<ComponentIx>,
    faults: &mut Faults,
) {
    let component = &components[at.0 as usize];
    if path.contains(&at) {
        let names = path
            .iter()
            .chain([&at])
            .map(|ix| components[ix.0 as usize].name.as_str());
        let names: Vec<_> = names.collect();
        let field = format!("components.{}", component.name);
        return faults.add(
            field,
            format!("the component contains itself: {}", names.join(" → ")),
        );
    }
    // The walk is recursive, and its depth is the client's to choose.
    if path.len() >= DEPTH_MAX {
        let field = format!("components.{}", component.name);
        return faults.add(
            field,
            format!("DAGs may be nested {DEPTH_MAX} levels deep at most"),
        );
    }
    let Body::Dag(dag) = &component.body else {
        return;
    };
    if checked.contains(&at) {
        return;
    }
    path.push(at);
    for task in &dag.tasks {
        visit(components, task.component, path, checked, faults);
    }
    path.pop();
    checked.insert(at);
}

/// A pipeline that unfolds to more tasks than a run can have is refused. Components have no cycles.
pub(super) fn check_size(components: &[Component], faults: &mut Faults) {
    let tasks = count_tasks(components, ComponentIx(0), &mut BTreeMap::new());
    if tasks > UNFOLDED_MAX {
        let problem = format!(
            "the pipeline unfolds to {tasks} tasks, and a run may have {UNFOLDED_MAX}: use loops, or \
             several pipelines"
        );
        faults.add("root.dag", problem);
    }
}

fn count_tasks(
    components: &[Component],
    at: ComponentIx,
    counts: &mut BTreeMap<ComponentIx, u64>,
) -> u64 {
    if let Some(tasks) = counts.get(&at) {
        return *tasks;
    }
    let mut tasks: u64 = 1;
    if let Body::Dag(dag) = &components[at.0 as usize].body {
        for task in &dag.tasks {
            tasks = tasks.saturating_add(count_tasks(components, task.component, counts));
        }
    }
    // Each component is counted once: one DAG used twice at each of many levels would take exponential
    // time.
    counts.insert(at, tasks);
    tasks
}

/// A retry policy on a group is its tasks', where they have none of their own. A component that is
/// used with different policies keeps the first, as there is one plan of it.
pub(super) fn inherit_retries(components: &mut [Component]) {
    let mut open = vec![ComponentIx(0)];
    let mut visited = BTreeSet::from([ComponentIx(0)]);
    while let Some(at) = open.pop() {
        let Body::Dag(dag) = &components[at.0 as usize].body else {
            continue;
        };
        let children: Vec<_> = dag
            .tasks
            .iter()
            .map(|task| (task.component, task.retry))
            .collect();
        for (component, retry) in children {
            if !visited.insert(component) {
                continue;
            }
            open.push(component);
            if let (Some(retry), Body::Dag(inner)) =
                (retry, &mut components[component.0 as usize].body)
            {
                for task in &mut inner.tasks {
                    task.retry = task.retry.or(Some(retry));
                }
            }
        }
    }
}
