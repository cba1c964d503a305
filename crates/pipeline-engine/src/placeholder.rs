//! Placeholders `{{$…}}` in constants and commands.
//!
//! One pass from left to right; a value that looks like a placeholder is not expanded again.
//! Placeholders that are not known (Google Cloud has some of its own) stay as they are.
//! Reference: KFP `driver.go`, `launcher_v2.go`, `kfp.local.placeholder_utils`.

use std::collections::BTreeMap;

use ferroflow_types::limit::bytes_of;
use serde_json::{Map, Value};

use crate::budget::Budget;
use crate::executor_input::{artifact_path, for_executor};
use crate::values::{normalize, to_text};

/// What is known of a task beside its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskFacts {
    /// `pipeline_job_uuid`
    pub run_id: String,
    /// `pipeline_job_resource_name`
    pub run_name: String,
    /// `pipeline_job_name`
    pub display_name: String,
    /// `pipeline_task_name`
    pub task_name: String,
    /// `pipeline_task_uuid`
    pub task_id: String,
    /// `pipeline_root`
    pub pipeline_root: String,
    /// `pipeline_job_create_time_utc`
    pub create_time: String,
    /// `pipeline_job_schedule_time_utc`
    pub schedule_time: String,
    /// `workspace_path`, when tasks share a workspace.
    pub workspace_path: Option<String>,
}

/// A placeholder that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("placeholder {placeholder}: {problem}")]
pub(crate) struct PlaceholderError {
    placeholder: String,
    problem: String,
}

/// What a command's placeholders may refer to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExecutorContext<'a> {
    /// The `ExecutorInput` as JSON.
    pub executor_input: &'a Value,
    /// What is known of the task.
    pub facts: &'a TaskFacts,
    /// What its texts may have together.
    pub budget: &'a Budget,
}

/// A constant of the pipeline with its placeholders resolved; `inputs` are the task's other inputs.
/// A text that is one placeholder and nothing else becomes the value itself, whatever its type.
pub(crate) fn resolve_constant(
    value: &Value,
    facts: &TaskFacts,
    inputs: &BTreeMap<String, Value>,
    budget: &Budget,
) -> Result<Value, PlaceholderError> {
    let lookup = |path: &str| match input_parameter(path) {
        Some(name) => match inputs.get(name) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(format!("input parameter {name} has no value")),
        },
        None => Ok(lookup_fact(path, facts)),
    };
    resolve_value(value, budget, &lookup)
}

fn resolve_value(
    value: &Value,
    budget: &Budget,
    lookup: &impl Fn(&str) -> Result<Option<Value>, String>,
) -> Result<Value, PlaceholderError> {
    match value {
        Value::String(text) => {
            if let [Part::Placeholder { path, whole }] = parts(text)[..]
                && let Some(found) = lookup_placeholder(path, whole, lookup)?
            {
                let charged = budget.take(bytes_of(&found));
                charged.map_err(placeholder_error(whole))?;
                return Ok(found);
            }
            replace(text, budget, lookup).map(Value::String)
        }
        Value::Array(items) => items
            .iter()
            .map(|item| resolve_value(item, budget, lookup))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        Value::Object(fields) => {
            let mut resolved = Map::new();
            for (name, value) in fields {
                let name = replace(name, budget, lookup)?;
                resolved.insert(name, resolve_value(value, budget, lookup)?);
            }
            Ok(Value::Object(resolved))
        }
        other => Ok(other.clone()),
    }
}

/// Whether a constant holds placeholders of the executor: what it is told and where it writes, which
/// is known for each attempt only. The SDK documents them as arguments of tasks
/// (`dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER` and `…_OUTPUT_PATH_PLACEHOLDER`).
pub(crate) fn references_executor(value: &Value) -> bool {
    let in_text = |text: &str| {
        parts(text).iter().any(|part| match part {
            Part::Plain(_) => false,
            Part::Placeholder { path, .. } => is_executor_path(path),
        })
    };
    match value {
        Value::String(text) => in_text(text),
        Value::Array(items) => items.iter().any(references_executor),
        Value::Object(fields) => {
            let mut fields = fields.iter();
            fields.any(|(name, value)| in_text(name) || references_executor(value))
        }
        _ => false,
    }
}

fn is_executor_path(path: &str) -> bool {
    let known = [
        ".outputs",
        ".outputMetadataUri",
        ".json_escape[",
        ".inputs.artifacts",
    ];
    path.is_empty() || known.iter().any(|start| path.starts_with(start))
}

/// A constant that [`references_executor`], for one attempt.
pub(crate) fn resolve_for_executor(
    value: &Value,
    context: &ExecutorContext<'_>,
    inputs: &BTreeMap<String, Value>,
) -> Result<Value, PlaceholderError> {
    let lookup = |path: &str| match input_parameter(path) {
        Some(name) => Ok(inputs.get(name).cloned()),
        None => lookup_context(path, context),
    };
    resolve_value(value, context.budget, &lookup)
}

/// A text of a command with its placeholders resolved.
pub(crate) fn resolve_text(
    text: &str,
    context: &ExecutorContext<'_>,
) -> Result<String, PlaceholderError> {
    replace(text, context.budget, &|path: &str| {
        lookup_context(path, context)
    })
}

/// The placeholders of a text that stand for something of the run or the task, with what that is.
pub(crate) fn resolve_facts(text: &str, facts: &TaskFacts) -> Vec<(String, Value)> {
    let all = parts(text).into_iter().filter_map(|part| match part {
        Part::Placeholder { path, .. } => Some((path.to_owned(), lookup_fact(path, facts)?)),
        Part::Plain(_) => None,
    });
    all.collect()
}

/// The value of an environment variable. Kubernetes and every runtime here expand `$(NAME)` in it,
/// as written; what an input contains is doubled, so that it arrives as it is.
pub(crate) fn resolve_env(
    text: &str,
    context: &ExecutorContext<'_>,
) -> Result<String, PlaceholderError> {
    replace(text, context.budget, &|path: &str| {
        let value = lookup_context(path, context)?;
        Ok(value.map(|value| Value::String(to_text(&value).replace('$', "$$"))))
    })
}

const OPEN: &str = "{{$";
const CLOSE: &str = "}}";

#[derive(Debug, Clone, Copy)]
enum Part<'t> {
    Plain(&'t str),
    /// The path is what follows the `$`.
    Placeholder {
        path: &'t str,
        whole: &'t str,
    },
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(OPEN) {
        let inner = &rest[begin + OPEN.len()..];
        // Without an end it is text like any other.
        let Some(end) = inner.find(CLOSE) else { break };
        if begin > 0 {
            parts.push(Part::Plain(&rest[..begin]));
        }
        let whole = &rest[begin..begin + OPEN.len() + end + CLOSE.len()];
        parts.push(Part::Placeholder {
            path: inner[..end].trim(),
            whole,
        });
        rest = &inner[end + CLOSE.len()..];
    }
    if !rest.is_empty() {
        parts.push(Part::Plain(rest));
    }
    parts
}

fn lookup_placeholder(
    path: &str,
    whole: &str,
    lookup: &impl Fn(&str) -> Result<Option<Value>, String>,
) -> Result<Option<Value>, PlaceholderError> {
    lookup(path).map_err(placeholder_error(whole))
}

fn placeholder_error(whole: &str) -> impl FnOnce(String) -> PlaceholderError {
    |problem| PlaceholderError {
        placeholder: whole.to_owned(),
        problem,
    }
}

fn replace(
    text: &str,
    budget: &Budget,
    lookup: &impl Fn(&str) -> Result<Option<Value>, String>,
) -> Result<String, PlaceholderError> {
    if !text.contains(OPEN) {
        return Ok(text.to_owned());
    }
    let mut result = String::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Part::Plain(plain) => result.push_str(plain),
            Part::Placeholder { path, whole } => match lookup_placeholder(path, whole, lookup)? {
                Some(value) => {
                    let text = to_text(&value);
                    let charged = budget.take(text.len() as u64);
                    charged.map_err(placeholder_error(whole))?;
                    result.push_str(&text);
                }
                None => result.push_str(whole),
            },
        }
    }
    Ok(result)
}

/// The name in `.inputs.parameters['name']`.
fn input_parameter(path: &str) -> Option<&str> {
    let (name, rest) = quoted(path.strip_prefix(".inputs.parameters")?)?;
    rest.is_empty().then_some(name)
}

/// `['name']…` or `["name"]…`: the name and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('[')?;
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (name, rest) = text[1..].split_once(quote)?;
    Some((name, rest.strip_prefix(']')?))
}

fn lookup_fact(path: &str, facts: &TaskFacts) -> Option<Value> {
    let text = match path {
        ".pipeline_job_name" => &facts.display_name,
        ".pipeline_job_resource_name" => &facts.run_name,
        ".pipeline_job_uuid" => &facts.run_id,
        ".pipeline_task_name" => &facts.task_name,
        ".pipeline_task_uuid" => &facts.task_id,
        ".pipeline_job_create_time_utc" => &facts.create_time,
        ".pipeline_job_schedule_time_utc" => &facts.schedule_time,
        ".pipeline_root" => &facts.pipeline_root,
        ".workspace_path" => facts.workspace_path.as_ref()?,
        _ => return None,
    };
    Some(Value::String(text.clone()))
}

fn lookup_context(path: &str, context: &ExecutorContext<'_>) -> Result<Option<Value>, String> {
    let input = context.executor_input;
    let text = |text: String| Ok(Some(Value::String(text)));
    if path.is_empty() {
        return text(for_executor(input).to_string());
    }
    if let Some(times) = path
        .strip_prefix(".json_escape[")
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return text(escaped(&for_executor(input), times, context.budget)?);
    }
    if path == ".outputs.output_file" || path == ".outputMetadataUri" {
        return Ok(input.pointer("/outputs/outputFile").cloned());
    }
    if let Some(name) = input_parameter(path) {
        // A parameter without value, which must be an optional one, is nothing.
        let values = &input["inputs"]["parameterValues"];
        return Ok(Some(values.get(name).cloned().unwrap_or(Value::Null)));
    }
    if let Some((name, field)) = path.strip_prefix(".outputs.parameters").and_then(quoted) {
        let parameter = &input["outputs"]["parameters"][name];
        return match (field, parameter.get("outputFile")) {
            (".output_file", Some(file)) => Ok(Some(file.clone())),
            (_, Some(_)) => Err(format!("{field} is not known, only .output_file")),
            (_, None) => Err(format!("there is no output parameter {name}")),
        };
    }
    for (prefix, side) in [
        (".inputs.artifacts", "inputs"),
        (".outputs.artifacts", "outputs"),
    ] {
        if let Some((name, field)) = path.strip_prefix(prefix).and_then(quoted) {
            return artifact_field(&input[side]["artifacts"][name], name, field, side);
        }
    }
    Ok(lookup_fact(path, context.facts))
}

/// JSON as the content of a JSON text, `times` over.
fn escaped(input: &Value, times: &str, budget: &Budget) -> Result<String, String> {
    let times: u8 = times
        .parse()
        .ok()
        .filter(|times| *times <= 8)
        .ok_or("at most 8 times")?;
    let mut text = input.to_string();
    for _ in 0..times {
        // Each time may double it, so it is refused before it is put together.
        budget.check(text.len() as u64)?;
        let quoted = Value::String(text).to_string();
        text = quoted[1..quoted.len() - 1].to_owned();
    }
    Ok(text)
}

fn artifact_field(
    list: &Value,
    name: &str,
    field: &str,
    side: &str,
) -> Result<Option<Value>, String> {
    let Some(Value::Array(artifacts)) = list.get("artifacts") else {
        // An optional input artifact that was not given is nothing.
        return match side {
            "inputs" => Ok(Some(Value::Null)),
            _ => Err(format!("there is no output artifact {name}")),
        };
    };
    if field.is_empty() {
        return Ok(Some(Value::Array(artifacts.clone())));
    }
    // A field of a list is that of its first artifact, as upstream.
    let Some(artifact) = artifacts.first() else {
        return Ok(Some(Value::Null));
    };
    let metadata = &artifact["metadata"];
    Ok(Some(match field {
        ".path" => Value::String(artifact_path(artifact)),
        ".uri" => artifact["uri"].clone(),
        ".name" => artifact["name"].clone(),
        // `properties` is what specifications of old SDKs say for metadata.
        ".metadata" | ".properties" => metadata.clone(),
        _ => {
            let key = [".metadata", ".properties"]
                .iter()
                .find_map(|prefix| quoted(field.strip_prefix(prefix)?))
                .filter(|(_, rest)| rest.is_empty());
            let Some((key, _)) = key else {
                return Err(format!("{field} is not known of an artifact"));
            };
            normalize(metadata.get(key).cloned().unwrap_or(Value::Null))
        }
    }))
}

#[cfg(test)]
#[path = "placeholder_tests.rs"]
mod tests;
