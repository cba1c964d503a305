//! `ferroflow run get`: everything that is asked about a run, on a page.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use ferroflow_proto::json::{struct_to_map, to_json};
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::pipelines::v1::{Artifact, Task, TaskState};
use prost_types::Timestamp;
use serde_json::{Map, Value};

use super::{PACKAGE, fetch, has_ended, state, tasks};
use crate::cli::output::{
    bold, duration, elapsed, json, json_of, line, paint, printable, style_of, time_with_zone,
    whole_seconds, width,
};
use crate::cli::table::table;
use crate::cli::{Channel, Format, Global, artifact, clients, remarks, watch};

/// Characters of a value that are shown.
const VALUE_MAX: usize = 200;

/// Columns that are kept for a value on the narrowest terminal.
const VALUE_MIN: usize = 30;

pub(super) async fn run(channel: Channel, run_id: String, global: &Global) -> anyhow::Result<()> {
    let run = fetch(channel.clone(), &run_id).await?;
    let tasks = in_order(tasks(channel.clone(), &run_id).await?);
    let artifacts = artifact::list_for_tasks(&channel, &run_id, &tasks).await?;
    if global.output == Format::Json {
        return json(&run_document(&run, &tasks, &artifacts)?);
    }
    let ended = has_ended(&run);
    let experiment = experiment(channel, &run.experiment_id).await;
    let root = tasks.iter().find(|task| task.path == "root");
    print_header(&run, root, &experiment);
    if let Some(error) = run.error.as_ref().filter(|_| state(&run) == "failed") {
        let message = paint(&error.message, style_of("failed"));
        line(&format!("{:11} {message}", "Cause"));
        for text in watch::failures(&tasks) {
            line(&text);
        }
    }
    values(
        "Parameters",
        &parameters(&run, root),
        &elided(root, "input_parameters"),
    );
    task_table(&tasks);
    for remark in remarks::lines(&tasks) {
        line(&format!("  {remark}"));
    }
    metrics(&tasks, &artifacts);
    let outputs = root.and_then(|root| root.output_parameters.as_ref());
    let outputs = outputs.map(struct_to_map).unwrap_or_default();
    values("Outputs", &outputs, &elided(root, "output_parameters"));
    artifact_table(&tasks, &artifacts, global.output);
    if !ended {
        line(&format!(
            "\nfollow it: ferroflow run logs {run_id} --follow"
        ));
    }
    Ok(())
}

/// The run as the API has it, with its tasks and artifacts.
fn run_document(run: &pb::Run, tasks: &[Task], artifacts: &[Artifact]) -> anyhow::Result<Value> {
    let mut document = json_of(&format!("{PACKAGE}.Run"), run)?;
    let tasks = tasks
        .iter()
        .map(|task| json_of("ferroflow.pipelines.v1.Task", task));
    let artifacts = artifacts
        .iter()
        .map(|artifact| json_of("ferroflow.pipelines.v1.Artifact", artifact));
    document["tasks"] = tasks.collect::<anyhow::Result<Value>>()?;
    document["artifacts"] = artifacts.collect::<anyhow::Result<Value>>()?;
    Ok(document)
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

/// What the run was given, and the defaults of what it was not.
fn parameters(run: &pb::Run, root: Option<&Task>) -> Map<String, Value> {
    let given = run.runtime_config.iter().flat_map(|one| &one.parameters);
    let mut all: Map<String, Value> = given
        .map(|(name, value)| (name.clone(), to_json(value)))
        .collect();
    // The root task has the values that count: with defaults, and with macros filled in.
    let effective = root.and_then(|root| root.input_parameters.as_ref());
    all.extend(effective.map(struct_to_map).unwrap_or_default());
    all
}

/// How long a run takes. The API's times of runs are whole seconds; those of its root task, which
/// begins and ends with it, are more exact.
fn run_duration(run: &pb::Run, root: Option<&Task>) -> String {
    let (from, to) = (run.created_at.as_ref(), run.finished_at.as_ref());
    let seconds = |at: Option<&Timestamp>| at.map_or(0, |at| at.seconds);
    let exact = root.map(|root| (root.created_at.as_ref(), root.finished_at.as_ref()));
    match exact {
        Some((begun, ended))
            if seconds(begun) == seconds(from) && seconds(ended) == seconds(to) =>
        {
            elapsed(begun, ended)
        }
        _ => whole_seconds(from, to),
    }
}

fn print_header(run: &pb::Run, root: Option<&Task>, experiment: &str) {
    let state = state(run);
    let mut rows = vec![
        ("Run", bold(&run.display_name)),
        ("ID", run.run_id.clone()),
        ("State", paint(state, style_of(state))),
        ("Experiment", experiment.to_owned()),
        ("Created", time_with_zone(run.created_at.as_ref())),
    ];
    let took = if has_ended(run) { "Took" } else { "For" };
    rows.push((took, run_duration(run, root)));
    if run.storage_state() == pb::run::StorageState::Archived {
        rows.push(("Archived", "yes".to_owned()));
    }
    for (name, value) in rows {
        line(&format!("{name:11} {value}"));
    }
}

/// Named values, one a line, and those that are too large to be listed.
fn values(title: &str, values: &Map<String, Value>, elided: &[(&str, String)]) {
    if values.is_empty() && elided.is_empty() {
        return;
    }
    line(&format!("\n{}", bold(title)));
    let names = values.keys().map(String::as_str);
    let names = names.chain(elided.iter().map(|(name, _)| *name));
    let column = names.map(|name| name.chars().count()).max();
    let column = column.unwrap_or(0).min(30);
    for (name, value) in values {
        let before = name.chars().count().max(column) + 4;
        let max_width = width().map_or(VALUE_MAX, |width| width.saturating_sub(before));
        line(&format!(
            "  {name:column$}  {}",
            format_value(value, max_width)
        ));
    }
    // The run has its own parameters whole; those are listed above.
    for (name, place) in elided
        .iter()
        .filter(|(name, _)| !values.contains_key(*name))
    {
        line(&format!("  {name:column$}  is large, read it whole:"));
        line(&format!("    GET {place}"));
    }
}

/// A value on one line of so many columns; a long one is cut, `--output json` has it whole.
fn format_value(value: &Value, max_width: usize) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line = printable(&text.replace('\n', "\\n"));
    if display_width(&line) <= max_width.min(VALUE_MAX) {
        return line;
    }
    let length = format!("… ({} characters)", text.chars().count());
    let max_width = max_width
        .clamp(VALUE_MIN, VALUE_MAX)
        .saturating_sub(length.chars().count());
    let mut remaining = max_width;
    let fits = |c: &char| {
        let width = char_width(*c);
        let fits = width <= remaining;
        remaining = remaining.saturating_sub(width);
        fits
    };
    let cut: String = line.chars().take_while(fits).collect();
    format!("{cut}{length}")
}

/// Columns that a text takes on a terminal; of what may be wide, two.
fn display_width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    // Hangul Jamo, the first block with wide characters, begins here.
    if c >= '\u{1100}' { 2 } else { 1 }
}

fn start_key(task: &Task) -> (i64, i32) {
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
        siblings.sort_by(|one, other| match start_key(one).cmp(&start_key(other)) {
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
            watch::state_name(task.state()).to_owned(),
            task_duration(task),
            note(task),
        ]
    });
    table(&["TASK", "STATE", "TOOK", "NOTE"], rows.collect());
}

fn task_duration(task: &Task) -> String {
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
fn producers(tasks: &[Task]) -> BTreeMap<i64, &Task> {
    let mut producers = BTreeMap::new();
    // Deeper tasks come later, and they made what their parents pass on.
    for task in tasks.iter().filter(|task| task.path != "root") {
        for refs in task.output_artifacts.values() {
            producers.extend(refs.ids.iter().map(|id| (*id, task)));
        }
    }
    producers
}

fn producer_path(producer: Option<&&Task>) -> String {
    producer.map_or_else(String::new, |task| {
        task.path.trim_start_matches("root.").to_owned()
    })
}

/// The parameters of a task that are too large to be listed, and where they are read.
fn elided<'a>(task: Option<&'a Task>, kind: &str) -> Vec<(&'a str, String)> {
    let Some(task) = task else {
        return Vec::new();
    };
    let names = task.elided.iter().filter_map(|one| one.split_once('.'));
    let names = names.filter(|(of, _)| *of == kind);
    let name_and_path = |(_, name): (&str, &'a str)| {
        let query = if kind == "output_parameters" {
            "?output=true"
        } else {
            ""
        };
        let (run, task) = (&task.run_id, &task.task_id);
        let path = format!("/apis/ferroflow/v1/runs/{run}/tasks/{task}/parameters/{name}{query}");
        (name, path)
    };
    names.map(name_and_path).collect()
}

fn metrics(tasks: &[Task], artifacts: &[Artifact]) {
    let producers = producers(tasks);
    let mut rows = Vec::new();
    for artifact in artifacts.iter().filter(|one| artifact::is_metrics(one)) {
        let values = artifact
            .metadata
            .as_ref()
            .map_or_else(Map::new, struct_to_map);
        for (name, value) in &values {
            let scalar = !value.is_object() && !value.is_array();
            // KFP adds these two to the metadata of every artifact.
            if scalar && name != "display_name" && name != "store_session_info" {
                let of = producer_path(producers.get(&artifact.artifact_id));
                rows.push(vec![of, name.clone(), format_value(value, VALUE_MAX)]);
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
    let producers = producers(tasks);
    line("");
    artifact::print(artifacts, format, &|one| {
        producer_path(producers.get(&one.artifact_id))
    });
    line("\nread one: ferroflow artifact open|download ID");
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::json::map_to_struct;
    use serde_json::json;

    use super::*;
    use crate::cli::pipeline_args::config;

    fn task(path: &str, id: &str, parent: &str, start: i64) -> Task {
        Task {
            path: path.to_owned(),
            task_id: id.to_owned(),
            parent_task_id: parent.to_owned(),
            started_at: (start > 0).then_some(Timestamp {
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

        assert!(format_value(&long, VALUE_MAX).ends_with("… (1000 characters)"));
        assert_eq!(format_value(&long, 70).chars().count(), 70);
        assert_eq!(
            format_value(&json!("値".repeat(1000)), 70)
                .matches('値')
                .count(),
            25
        );
        assert_eq!(format_value(&json!("a\nb"), 70), "a\\nb");
        assert_eq!(format_value(&json!([1, "a"]), 70), "[1,\"a\"]");
    }

    #[test]
    fn parameters_are_what_counts_with_defaults() {
        let given = json!({"a": 5, "text": "[[Index]]"});
        let root = json!({"a": 5, "text": "1", "rate": 0.1});
        let fields = |value: &Value| map_to_struct(value.as_object().unwrap());
        let run = pb::Run {
            runtime_config: Some(config(given.as_object().unwrap())),
            ..pb::Run::default()
        };
        let root = Task {
            input_parameters: Some(fields(&root)),
            ..Task::default()
        };

        let all = Value::Object(parameters(&run, Some(&root)));
        assert_eq!(all, json!({"a": 5, "text": "1", "rate": 0.1}));
        let all = Value::Object(parameters(&run, None));
        assert_eq!(all, given);
    }

    #[test]
    fn a_run_is_timed_by_its_root() {
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let run = pb::Run {
            created_at: at(10, 0),
            finished_at: at(11, 0),
            ..pb::Run::default()
        };
        let root = Task {
            created_at: at(10, 900_000_000),
            finished_at: at(11, 200_000_000),
            ..Task::default()
        };

        assert_eq!(run_duration(&run, Some(&root)), "0.3s");
        assert_eq!(run_duration(&run, None), "1s");
    }
}
