//! The command of an attempt: every placeholder resolved, every path known.
//!
//! The runtime says where things are ([`AttemptPaths`]); this says what is run there. Contract: KFP's
//! executor input and `{{$…}}` placeholders.

mod executor;

use std::collections::BTreeMap;
use std::time::Duration;

use ferroflow_types::quantity::parse_quantity;
use ferroflow_types::{TaskId, ValueLimit};
use serde_json::{Map, Value};

use crate::arguments::resolve_args;
use crate::artifact::Artifact;
use crate::budget::Budget;
use crate::engine::RunState;
use crate::engine::task::{TaskError, TaskIx};
use crate::executor_input::{is_local, local_path};
use crate::placeholder::{ExecutorContext, resolve_text};
use crate::plan::{Body, Component, Importer, ParameterType, ResourceSpec};
use crate::task_config::ConfigField;
use crate::{platform, values};
use executor::{
    executor_input, fill_executor_constants, fill_task_config, resolve_env_and_resources,
};

/// Where an attempt finds things.
#[derive(Debug, Clone)]
pub struct AttemptPaths {
    /// The folder for output parameters.
    pub outputs_dir: String,
    /// The file for the executor's own report.
    pub metadata_file: String,
    /// The folder for copies of input artifacts of this machine, where commands get copies.
    pub copies_dir: Option<String>,
}

impl AttemptPaths {
    /// The path at which the command finds an input artifact, if it is not the one that stands for
    /// its URI.
    fn path_of(&self, artifact: &Artifact) -> Option<String> {
        let uri = &artifact.uri;
        match (&artifact.custom_path, &self.copies_dir) {
            (None, Some(folder)) if is_local(uri) => {
                let name = uri.trim_end_matches('/').rsplit('/').next();
                Some(format!(
                    "{folder}/{}/{}",
                    artifact.id,
                    name.unwrap_or_default()
                ))
            }
            // Whoever reads the URI as a path would look for a folder `file:`.
            (None, None) if uri.starts_with("file://") => Some(local_path(uri)),
            (custom, _) => custom.clone(),
        }
    }
}

/// An output artifact and where it is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputLocation {
    /// The output's name.
    pub name: String,
    /// Whether it may be several artifacts.
    pub list: bool,
    /// Its URI.
    pub uri: String,
    /// The path that the command writes to.
    pub path: String,
}

/// An input artifact and where it is to be found.
#[derive(Debug, Clone, PartialEq)]
pub struct InputLocation {
    /// Its URI.
    pub uri: String,
    /// The path at which the command looks for it.
    pub path: String,
    /// `sha256:…` of its content, if that is known.
    pub digest: Option<String>,
    /// What it looked like then, if it must not have changed.
    pub stamp: Option<String>,
}

/// A command, ready to run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Invocation {
    /// The image it was written for.
    pub image: String,
    /// Command and arguments.
    pub argv: Vec<String>,
    /// Whether they are arguments only, for the entry point of the image.
    pub entry_point: bool,
    /// Declared environment variables, in order.
    pub env: Vec<(String, String)>,
    /// Output parameters: name, type, file.
    pub parameters: Vec<(String, ParameterType, String)>,
    /// Output artifacts.
    pub artifacts: Vec<OutputLocation>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Input parameters, defaults filled in.
    pub given: BTreeMap<String, Value>,
    /// Input artifacts.
    pub inputs: Vec<InputLocation>,
    /// Input artifacts that are elsewhere already: the path that stands for the URI, where it is.
    pub links: Vec<(String, String)>,
    /// The folder that inputs go to, when nothing else is to be done.
    pub fetch_into: Option<String>,
    /// Requests and limits as written.
    pub resources: ResourceSpec,
}

/// The command of the current attempt of `ix`.
///
/// # Errors
/// Says which input, placeholder or resource is wrong; the task fails with it.
pub fn build(run: &RunState, ix: TaskIx, paths: &AttemptPaths) -> Result<Invocation, TaskError> {
    let component = run.component(ix);
    let container = match &component.body {
        Body::Container(container) => container,
        Body::Importer(importer) => return download(run, ix, importer),
        Body::Dag(_) => return Err(TaskError::new("Internal", "the task has no command")),
    };
    let artifacts = output_locations(run, ix, component);
    let parameters = output_files(component, paths);
    let facts = run.task_facts(ix);
    let mut input = executor_input(run, ix, paths, &parameters, &artifacts);
    let budget = Budget::new(run.facts().values);
    fill_executor_constants(run, ix, (&facts, &budget), &mut input)?;
    let mut encoded = input.to_json();
    let (env, resources) = resolve_env_and_resources(container, &encoded, (&facts, &budget))?;
    if fill_task_config(run, ix, (env.as_slice(), &resources), &encoded, &mut input) {
        encoded = input.to_json();
    }
    check_sizes(&input.parameters, run.facts().values)?;
    let parameters_given = input.parameters;
    let context = ExecutorContext {
        executor_input: &encoded,
        facts: &facts,
        budget: &budget,
    };
    let wrong = |error: String| TaskError::new("Input", error);
    let text = |template: &str| resolve_text(template, &context).map_err(|e| wrong(e.to_string()));

    // `IfPresent` asks for what was given; in `input` the defaults are filled in as well.
    let given = &run.task(ix).inputs;
    let present = given
        .parameters
        .keys()
        .chain(given.artifacts.keys())
        .map(String::as_str);
    let present = present.collect();
    let resolve = |args: &[String]| {
        resolve_args(args, &present, &context).map_err(|error| wrong(error.to_string()))
    };
    let mut argv = resolve(&container.command)?;
    argv.extend(resolve(&container.args)?);
    let entry_point = container.command.is_empty() && run.facts().entry_points;
    if argv.is_empty() && !entry_point && !platform::is_operation(&container.image) {
        return Err(no_command(&container.image));
    }
    let passthroughs = &component.passthroughs;
    // After `fill_task_config`, which needs what the task's own pod may not get.
    let env = passthroughs.part_for_task(ConfigField::Env, env);
    let resources = passthroughs.part_for_task(ConfigField::Resources, resources);
    let (cpu_millis, memory_bytes) = limits(&resources)?;
    Ok(Invocation {
        image: text(&container.image)?,
        argv: argv
            .into_iter()
            .map(|word| run.in_workspace(word))
            .collect(),
        env,
        entry_point,
        parameters,
        artifacts,
        timeout: platform::timeout(container),
        cpu_millis,
        memory_bytes,
        given: parameters_given,
        inputs: input_locations(run, ix, paths),
        links: input_links(run, ix),
        fetch_into: None,
        resources,
    })
}

/// A run's own parameters and outputs were checked where they came in; lists that collect outputs, and
/// texts that are put together, were not.
fn check_sizes(parameters: &BTreeMap<String, Value>, limit: ValueLimit) -> Result<(), TaskError> {
    match values::too_large(parameters, limit).next() {
        None => Ok(()),
        Some((name, problem)) => {
            let message = format!("input parameter {name}: {problem}");
            Err(TaskError::new("Input", message))
        }
    }
}

/// The file of each output parameter.
fn output_files(
    component: &Component,
    paths: &AttemptPaths,
) -> Vec<(String, ParameterType, String)> {
    let outputs = component.output_parameters.iter();
    let file = |name: &str| format!("{}/{name}", paths.outputs_dir);
    outputs
        .map(|(name, kind)| (name.clone(), *kind, file(name)))
        .collect()
}

/// What brings an importer's content to the workspace.
fn download(run: &RunState, ix: TaskIx, importer: &Importer) -> Result<Invocation, TaskError> {
    let (uri, _metadata) = run.import_request(ix, importer)?;
    let path = run.workspace_copy_path(&uri)?;
    Ok(Invocation {
        inputs: vec![InputLocation {
            uri,
            path,
            digest: None,
            stamp: None,
        }],
        fetch_into: run.facts().workspace_path.clone(),
        ..Invocation::default()
    })
}

fn no_command(image: &str) -> TaskError {
    let message = format!(
        "the component has no command, and only `--runtime docker` knows the entry point of image \
         {image}: set a command, or use it"
    );
    TaskError::new("Unsupported", message)
}

/// Where the input artifacts are and where the command looks for them. What another path stands for
/// already is there already.
fn input_locations(run: &RunState, ix: TaskIx, paths: &AttemptPaths) -> Vec<InputLocation> {
    let lists = run.task(ix).inputs.artifacts.values().flatten();
    let remote = lists.filter(|artifact| artifact.custom_path.is_none());
    remote
        .map(|artifact| {
            let path = paths.path_of(artifact);
            InputLocation {
                uri: artifact.uri.clone(),
                path: path.unwrap_or_else(|| local_path(&artifact.uri)),
                digest: artifact.digest.clone(),
                stamp: artifact.stamp.clone(),
            }
        })
        .collect()
}

/// Input artifacts that another path stands for.
fn input_links(run: &RunState, ix: TaskIx) -> Vec<(String, String)> {
    let lists = run.task(ix).inputs.artifacts.values().flatten();
    let links = lists.filter_map(|artifact| {
        let path = local_path(&artifact.uri);
        let target = artifact.custom_path.clone()?;
        // A path and a `file://` URI stand for themselves, so nothing has to lead there.
        (!artifact.uri.ends_with(&path)).then_some((path, target))
    });
    links.collect()
}

/// `<root>/<pipeline>/<run>/<task>/<unique per attempt>/<output>`, as upstream lays it out.
fn output_locations(run: &RunState, ix: TaskIx, component: &Component) -> Vec<OutputLocation> {
    let facts = run.facts();
    let task = run.task(ix);
    // Each attempt has a folder of its own. Its name is derived and not random, so that an attempt
    // which is asked for again after a restart has the same places.
    let salt = TaskId::derive(facts.run, &format!("{}#{}", task.path, task.attempt));
    let task = run.task_name(ix);
    // KFP's roots may carry settings of the store, `?region=…`; they are no part of artifacts' URIs.
    let (root, _query) = facts
        .pipeline_root
        .split_once('?')
        .unwrap_or((&facts.pipeline_root, ""));
    let root = root.trim_end_matches('/');
    let folder = format!("{root}/{}/{}/{task}/{salt}", run.plan().name, facts.run);
    let place = |(name, decl): (&String, &crate::plan::ArtifactOutputDecl)| {
        let uri = format!("{folder}/{name}");
        OutputLocation {
            name: name.clone(),
            list: decl.list,
            path: local_path(&uri),
            uri,
        }
    };
    component.output_artifacts.iter().map(place).collect()
}

fn limits(resources: &ResourceSpec) -> Result<(Option<u64>, Option<u64>), TaskError> {
    let amount = |field: &str, written: &Option<String>, scale: f64| {
        let Some(written) = written else {
            return Ok(None);
        };
        let amount = parse_quantity(written)
            .map_err(|error| TaskError::new("Input", format!("resources.{field}: {error}")))?;
        let scaled = (amount * scale).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "quantities are finite and not negative; a larger one than u64 is no limit"
        )]
        let rounded = scaled as u64;
        Ok((rounded > 0).then_some(rounded))
    };
    let cpu = amount("resourceCpuLimit", &resources.cpu_limit, 1000.0)?;
    let memory = amount("resourceMemoryLimit", &resources.memory_limit, 1.0)?;
    Ok((cpu, memory))
}

impl RunState {
    /// The folder that stands for KFP's fixed workspace path in a local run.
    fn in_workspace(&self, word: String) -> String {
        match &self.facts().workspace_path {
            Some(path) if word.contains(WORKSPACE) => word.replace(WORKSPACE, path),
            _ => word,
        }
    }
}

/// Where KFP mounts the workspace.
pub(crate) const WORKSPACE: &str = "/kfp-workspace";

/// What a command gave, once its artifacts have numbers.
pub fn output_artifact(
    component: &Component,
    name: &str,
    number: i64,
    produced: ProducedOutput,
) -> Artifact {
    let decl = component.output_artifacts.get(name);
    let mut metadata: Map<String, Value> =
        decl.map(|decl| decl.metadata.clone()).unwrap_or_default();
    metadata.extend(produced.metadata);
    let kind = decl.map(|decl| decl.kind.clone());
    let (schema_title, schema_version) = kind
        .map(|kind| (kind.schema_title, kind.schema_version))
        .unwrap_or_default();
    Artifact {
        id: number,
        name: produced.name,
        schema_title,
        schema_version,
        uri: produced.uri,
        metadata,
        digest: produced.digest,
        stamp: produced.stamp,
        size_bytes: produced.size_bytes,
        custom_path: produced.custom_path,
    }
}

/// An artifact as the command left it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProducedOutput {
    /// The output's name, or what the command called it.
    pub name: String,
    /// Where it is.
    pub uri: String,
    /// What the command said of it.
    pub metadata: Map<String, Value>,
    /// `sha256:…` of its content.
    pub digest: Option<String>,
    /// What it looked like then, if it is at the output's own place.
    pub stamp: Option<String>,
    /// The size of its content.
    pub size_bytes: Option<u64>,
    /// A path that replaces the one derived from the URI.
    pub custom_path: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_grew_beyond_the_limit_is_named() {
        let limit = ValueLimit::try_from(64 * 1024).unwrap();
        let texts = |bytes: usize| vec![Value::String("x".repeat(bytes)); 4];
        let given = |bytes| BTreeMap::from([("texts".to_owned(), Value::Array(texts(bytes)))]);

        assert!(check_sizes(&given(16_000), limit).is_ok());
        let error = check_sizes(&given(17_000), limit).unwrap_err();
        for named in ["input parameter texts", "68013 bytes", "65536", "value_max"] {
            assert!(error.message.contains(named), "{}", error.message);
        }
    }
}
