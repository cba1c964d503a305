//! `ferroflow run get`: everything that is asked about a run, on a page.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use ferroflow_proto::json::{struct_to_map, to_json};
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::pipelines::v1::{Artifact, Task, TaskState};
use serde_json::{Map, Value};

use super::{PACKAGE, fetch, has_ended, state, tasks};
use crate::cli::output::{
    bold, duration, elapsed, json, json_of, line, paint, style_of, table, time_with_zone,
};
use crate::cli::{Channel, Format, Global, artifact, clients, remarks, watch};

/// Characters of a value that are shown.
const VALUE_MAX: usize = 200;

pub(super) async fn run(channel: Channel, run_id: String, global: &Global) -> anyhow::Result<()> {
    let run = fetch(channel.clone(), &run_id).await?;
    let tasks = in_order(tasks(channel.clone(), &run_id).await?);
    let artifacts = artifact::of_tasks(&channel, &run_id, &tasks).await?;
    if global.output == Format::Json {
        return json(&whole(&run, &tasks, &artifacts)?);
    }
    let ended = has_ended(&run);
    let experiment = experiment(channel, &run.experiment_id).await;
    head(&run, &experiment);
    if let Some(error) = run.error.as_ref().filter(|_| state(&run) == "failed") {
        let said = paint(&error.message, style_of("failed"));
        line(&format!("{:11} {said}", "Cause"));
        for text in watch::failures(&tasks) {
            line(&text);
        }
    }
    let config = run.runtime_config.unwrap_or_default();
    let parameters = config.parameters.iter();
    let parameters = parameters.map(|(name, value)| (name.clone(), to_json(value)));
    values("Parameters", &parameters.collect());
    task_table(&tasks);
    for remark in remarks::lines(&tasks) {
        line(&format!("  {remark}"));
    }
    metrics(&tasks, &artifacts);
    let root = tasks.iter().find(|task| task.path == "root");
    if let Some(outputs) = root.and_then(|root| root.output_parameters.as_ref()) {
        values("Outputs", &struct_to_map(outputs));
    }
    if let Some(root) = root {
        for name in &root.elided {
            line(&left_out(root, name));
        }
    }
    artifact_table(&tasks, &artifacts, global.output);
    if !ended {
        line(&format!(
            "\nfollow it: ferroflow run logs {run_id} --follow"
        ));
    }
    Ok(())
}

/// The run as the API has it, with its tasks and artifacts.
fn whole(run: &pb::Run, tasks: &[Task], artifacts: &[Artifact]) -> anyhow::Result<Value> {
    let mut whole = json_of(&format!("{PACKAGE}.Run"), run)?;
    let tasks = tasks
        .iter()
        .map(|task| json_of("ferroflow.pipelines.v1.Task", task));
    let artifacts = artifacts
        .iter()
        .map(|artifact| json_of("ferroflow.pipelines.v1.Artifact", artifact));
    whole["tasks"] = tasks.collect::<anyhow::Result<Value>>()?;
    whole["artifacts"] = artifacts.collect::<anyhow::Result<Value>>()?;
    Ok(whole)
}

async fn experiment(channel: Channel, experiment_id: &str) -> String {
    let request = pb::GetExperimentRequest {
        experiment_id: experiment_id.to_owned(),
    };
    let mut client = clients::experiments(&channel);
    // One that is deleted has no name any more; its runs stay.
    client.get_experiment(request).await.map_or_else(
        |_| experiment_id.to_owned(),
        |found| found.into_inner().display_name,
    )
}

fn head(run: &pb::Run, experiment: &str) {
    let state = state(run);
    let mut rows = vec![
        ("Run", bold(&run.display_name)),
        ("ID", run.run_id.clone()),
        ("State", paint(state, style_of(state))),
        ("Experiment", experiment.to_owned()),
        ("Created", time_with_zone(run.created_at.as_ref())),
    ];
    let took = elapsed(run.created_at.as_ref(), run.finished_at.as_ref());
    rows.push((if has_ended(run) { "Took" } else { "For" }, took));
    if run.storage_state() == pb::run::StorageState::Archived {
        rows.push(("Archived", "yes".to_owned()));
    }
    for (name, value) in rows {
        line(&format!("{name:11} {value}"));
    }
}

/// Named values, one a line.
fn values(title: &str, values: &Map<String, Value>) {
    if values.is_empty() {
        return;
    }
    line(&format!("\n{}", bold(title)));
    let width = values.keys().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0).min(30);
    for (name, value) in values {
        line(&format!("  {name:width$}  {}", shown(value)));
    }
}

/// A value on one line; a long one is cut, `--output json` has it whole.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line = text.replace('\n', "\\n");
    if line.chars().count() <= VALUE_MAX {
        return line;
    }
    let cut: String = line.chars().take(VALUE_MAX).collect();
    format!("{cut}… ({} characters)", text.chars().count())
}

fn started(task: &Task) -> (i64, i32) {
    let at = task.started_at.as_ref().filter(|at| at.seconds > 0);
    at.map_or((i64::MAX, 0), |at| (at.seconds, at.nanos))
}

/// Parents before children, siblings in the order in which they began.
pub(in crate::cli) fn in_order(tasks: Vec<Task>) -> Vec<Task> {
    let mut children: HashMap<String, Vec<Task>> = HashMap::new();
    for task in tasks {
        children
            .entry(task.parent_task_id.clone())
            .or_default()
            .push(task);
    }
    for siblings in children.values_mut() {
        siblings.sort_by(|one, other| match started(one).cmp(&started(other)) {
            Ordering::Equal => {
                (one.iteration_index, &one.path).cmp(&(other.iteration_index, &other.path))
            }
            order => order,
        });
    }
    let mut ordered = Vec::new();
    let mut next = children.remove("").unwrap_or_default();
    next.reverse();
    while let Some(task) = next.pop() {
        let mut below = children.remove(&task.task_id).unwrap_or_default();
        below.reverse();
        next.append(&mut below);
        ordered.push(task);
    }
    ordered
}

fn task_table(tasks: &[Task]) {
    let tasks: Vec<_> = tasks.iter().filter(|task| task.path != "root").collect();
    if tasks.is_empty() {
        return;
    }
    line("");
    let rows = tasks.iter().map(|task| {
        let depth = task.path.matches('.').count().saturating_sub(1);
        vec![
            format!("{}{}", "  ".repeat(depth), task.name),
            watch::word(task.state()).to_owned(),
            took(task),
            note(task),
        ]
    });
    table(&["TASK", "STATE", "TOOK", "NOTE"], rows.collect());
}

fn took(task: &Task) -> String {
    match task.state() {
        TaskState::Running => elapsed(task.started_at.as_ref(), None),
        _ => duration(task.started_at.as_ref(), task.finished_at.as_ref()),
    }
}

/// What a task waits for, why it failed, or where its result is from.
fn note(task: &Task) -> String {
    let attempts = match task.attempt {
        attempt @ 2.. => format!("attempt {attempt}; "),
        _ => String::new(),
    };
    let text = match (&task.error, &task.cache) {
        _ if !task.note.is_empty() => task.note.clone(),
        (Some(error), _) => error.message.clone(),
        (None, Some(cache)) => cache.reason.clone(),
        (None, None) => String::new(),
    };
    format!("{attempts}{text}")
        .trim_end_matches("; ")
        .to_owned()
}

/// The task that an artifact is of, by the artifact's number.
fn makers(tasks: &[Task]) -> BTreeMap<i64, &Task> {
    let mut makers = BTreeMap::new();
    // Deeper tasks come later, and they made what their parents pass on.
    for task in tasks.iter().filter(|task| task.path != "root") {
        for refs in task.output_artifacts.values() {
            makers.extend(refs.ids.iter().map(|id| (*id, task)));
        }
    }
    makers
}

fn place(maker: Option<&&Task>) -> String {
    maker.map_or_else(String::new, |task| {
        task.path.trim_start_matches("root.").to_owned()
    })
}

/// Where a value is read that is too large for lists.
fn left_out(task: &Task, name: &str) -> String {
    let (kind, name) = name.split_once('.').unwrap_or(("", name));
    let output = if kind == "output_parameters" {
        "?output=true"
    } else {
        ""
    };
    format!(
        "  {name}  is large: GET /apis/ferroflow/v1/runs/{}/tasks/{}/parameters/{name}{output}",
        task.run_id, task.task_id
    )
}

fn metrics(tasks: &[Task], artifacts: &[Artifact]) {
    let makers = makers(tasks);
    let mut rows = Vec::new();
    for artifact in artifacts.iter().filter(|one| artifact::is_metrics(one)) {
        let values = artifact
            .metadata
            .as_ref()
            .map_or_else(Map::new, struct_to_map);
        for (name, value) in &values {
            let scalar = !value.is_object() && !value.is_array();
            if scalar && name != "display_name" && name != "store_session_info" {
                let of = place(makers.get(&artifact.artifact_id));
                rows.push(vec![of, name.clone(), shown(value)]);
            }
        }
    }
    if !rows.is_empty() {
        line("");
        table(&["TASK", "METRIC", "VALUE"], rows);
    }
}

fn artifact_table(tasks: &[Task], artifacts: &[Artifact], format: Format) {
    if artifacts.is_empty() {
        return;
    }
    let makers = makers(tasks);
    line("");
    artifact::print(artifacts, format, &|one| {
        place(makers.get(&one.artifact_id))
    });
    line("\nread one: ferroflow artifact open|download ID");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(path: &str, id: &str, parent: &str, start: i64) -> Task {
        Task {
            path: path.to_owned(),
            task_id: id.to_owned(),
            parent_task_id: parent.to_owned(),
            started_at: (start > 0).then_some(prost_types::Timestamp {
                seconds: start,
                nanos: 0,
            }),
            ..Task::default()
        }
    }

    #[test]
    fn tasks_are_in_the_order_in_which_they_began() {
        let tasks = vec![
            task("root", "r", "", 1),
            task("root.a", "a", "r", 30),
            task("root.b", "b", "r", 20),
            task("root.b.y", "y", "b", 22),
            task("root.b.x", "x", "b", 25),
            task("root.never", "n", "r", 0),
        ];

        let ordered = in_order(tasks);

        let ids: Vec<_> = ordered.iter().map(|task| task.task_id.as_str()).collect();
        assert_eq!(ids, ["r", "b", "y", "x", "a", "n"]);
    }

    #[test]
    fn long_values_are_cut_and_their_length_is_told() {
        let long = json!("x".repeat(1000));

        assert!(shown(&long).ends_with("… (1000 characters)"));
        assert_eq!(shown(&json!("a\nb")), "a\\nb");
        assert_eq!(shown(&json!([1, "a"])), "[1,\"a\"]");
    }
}
