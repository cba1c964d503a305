//! What the executor of an attempt is told: its input, environment and resources.

use serde_json::Value;

use super::{AttemptPaths, OutputLocation};
use crate::artifact::Artifact;
use crate::budget::Budget;
use crate::engine::RunState;
use crate::engine::inputs::fill_defaults;
use crate::engine::task::{TaskError, TaskIx};
use crate::executor_input::{ExecutorArtifact, ExecutorInput};
use crate::placeholder::{
    ExecutorContext, PlaceholderError, TaskFacts, references_executor, resolve_env,
    resolve_for_executor, resolve_text,
};
use crate::plan::{Container, ParameterSource, ParameterType, ResourceSpec};
use crate::{task_config, values};

pub(super) fn executor_input(
    run: &RunState,
    ix: TaskIx,
    paths: &AttemptPaths,
    parameters: &[(String, ParameterType, String)],
    artifacts: &[OutputLocation],
) -> ExecutorInput {
    let component = run.component(ix);
    let inputs = &run.task(ix).inputs;
    let mut given = inputs.parameters.clone();
    fill_defaults(component, &mut given);
    let input_artifacts = inputs.artifacts.iter().map(|(name, list)| {
        (
            name.clone(),
            list.iter()
                .map(|artifact| input_artifact(artifact, paths))
                .collect(),
        )
    });
    let output_artifacts = artifacts.iter().filter_map(|place| {
        let decl = component.output_artifacts.get(&place.name)?;
        let artifact = ExecutorArtifact {
            id: None,
            name: place.name.clone(),
            schema_title: decl.kind.schema_title.clone(),
            schema_version: decl.kind.schema_version.clone(),
            uri: place.uri.clone(),
            metadata: decl.metadata.clone(),
            custom_path: None,
        };
        Some((place.name.clone(), artifact))
    });
    ExecutorInput {
        parameters: given,
        input_artifacts: input_artifacts.collect(),
        output_parameters: parameters
            .iter()
            .map(|(name, _, file)| (name.clone(), file.clone()))
            .collect(),
        output_artifacts: output_artifacts.collect(),
        output_file: paths.metadata_file.clone(),
    }
}

/// Resolves constants of the task that name the executor's own input or output. Where one contains
/// the whole input, that copy has the constant as the pipeline wrote it.
pub(super) fn fill_executor_constants(
    run: &RunState,
    ix: TaskIx,
    (facts, budget): (&TaskFacts, &Budget),
    input: &mut ExecutorInput,
) -> Result<(), TaskError> {
    let constants = run.spec(ix).into_iter().flat_map(|task| &task.parameters);
    let constants: Vec<_> = constants
        .filter_map(|(name, given)| match &given.source {
            ParameterSource::Constant(value) if references_executor(value) => Some((name, value)),
            _ => None,
        })
        .collect();
    if constants.is_empty() {
        return Ok(());
    }
    let input_json = input.to_json();
    let context = ExecutorContext {
        executor_input: &input_json,
        facts,
        budget,
    };
    let siblings = &run.task(ix).inputs.parameters;
    for (name, value) in constants {
        let wrong =
            |problem: String| TaskError::new("Input", format!("input parameter {name}: {problem}"));
        let value = resolve_for_executor(value, &context, siblings)
            .map_err(|error| wrong(error.to_string()))?;
        let decl = run.component(ix).parameters.get(name);
        let value = match decl {
            Some(decl) => values::coerce(decl.kind, value).map_err(wrong)?,
            None => value,
        };
        input.parameters.insert(name.clone(), value);
    }
    Ok(())
}

fn input_artifact(artifact: &Artifact, paths: &AttemptPaths) -> ExecutorArtifact {
    ExecutorArtifact {
        id: Some(artifact.id),
        name: artifact.name.clone(),
        schema_title: artifact.schema_title.clone(),
        schema_version: artifact.schema_version.clone(),
        uri: artifact.uri.clone(),
        metadata: artifact.metadata.clone(),
        custom_path: paths.path_of(artifact),
    }
}

/// The declared environment and resources with placeholders resolved.
pub(super) fn resolve_env_and_resources(
    container: &Container,
    executor_input: &Value,
    (facts, budget): (&TaskFacts, &Budget),
) -> Result<(Vec<(String, String)>, ResourceSpec), TaskError> {
    let context = ExecutorContext {
        executor_input,
        facts,
        budget,
    };
    let wrong = |error: PlaceholderError| TaskError::new("Input", error.to_string());
    let mut env = Vec::with_capacity(container.env.len());
    for (name, value) in &container.env {
        env.push((name.clone(), resolve_env(value, &context).map_err(wrong)?));
    }
    let text = |template: &str| resolve_text(template, &context).map_err(wrong);
    Ok((env, resources(container, text)?))
}

/// Gives parameters of type `TASK_CONFIG` their value; whether there is one.
pub(super) fn fill_task_config(
    run: &RunState,
    ix: TaskIx,
    (env, resources): (&[(String, String)], &ResourceSpec),
    input_json: &Value,
    input: &mut ExecutorInput,
) -> bool {
    let component = run.component(ix);
    let config_names: Vec<_> = component.config_parameters().collect();
    if config_names.is_empty() {
        return false;
    }
    let facts = run.facts();
    let folder = facts.workspace_path.clone();
    // Upstream mounts the workspace only in tasks that are given its path.
    let folder = folder.filter(|folder| input_json.to_string().contains(folder));
    let sources = task_config::TaskConfigSources {
        env,
        resources,
        platform: &run.platform_asked(ix),
        workspace: facts.workspace_claim.clone().zip(folder),
    };
    let config = task_config::value(&component.passthroughs, &sources);
    for name in config_names {
        input.parameters.insert(name.clone(), config.clone());
    }
    true
}

/// Requests and limits with placeholders resolved.
fn resources(
    container: &Container,
    text: impl Fn(&str) -> Result<String, TaskError>,
) -> Result<ResourceSpec, TaskError> {
    let spec = &container.resources;
    let resolved = |template: &Option<String>| -> Result<Option<String>, TaskError> {
        let amount = template.as_deref().map(&text).transpose()?;
        // A placeholder of an optional parameter without a value is empty: nothing is asked for.
        Ok(amount.filter(|amount| !amount.is_empty()))
    };
    let accelerator = match &spec.accelerator {
        Some((kind, count)) => Some((text(kind)?, text(count)?)),
        None => None,
    };
    Ok(ResourceSpec {
        cpu_limit: resolved(&spec.cpu_limit)?,
        memory_limit: resolved(&spec.memory_limit)?,
        cpu_request: resolved(&spec.cpu_request)?,
        memory_request: resolved(&spec.memory_request)?,
        accelerator: accelerator.filter(|(kind, count)| !kind.is_empty() && count != "0"),
    })
}
