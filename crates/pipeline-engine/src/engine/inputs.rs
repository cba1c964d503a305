//! Where a task's inputs come from (reference: KFP IR `TaskInputsSpec`).

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_types::limit::bytes_of;
use serde_json::{Map, Value};

use super::RunState;
use super::task::{Role, Task, TaskError, TaskIx, Values};
use crate::artifact::Artifact;
use crate::budget::Budget;
use crate::executor_input::local_path;
use crate::plan::{
    ArtifactSource, Body, Component, Importer, ImporterUri, LoopItems, ParameterInput,
    ParameterInputDecl, ParameterSource, ParameterType, Plan, TaskSpec, TaskSpecIx,
};
use crate::{placeholder, platform, values};

fn input_error(message: impl Into<String>) -> TaskError {
    TaskError::new("Input", message)
}

impl RunState {
    /// The specification of a task in `plan`, and the task of the DAG around it.
    pub(super) fn parent_and_spec<'p>(
        &self,
        plan: &'p Plan,
        ix: TaskIx,
    ) -> Option<(TaskIx, &'p TaskSpec)> {
        let task = self.task(ix);
        let parent = task.parent?;
        match (
            &task.role,
            &plan.component(self.task(parent).component).body,
        ) {
            (Role::Task(spec), Body::Dag(dag)) => Some((parent, dag.task(*spec))),
            _ => None,
        }
    }

    pub(super) fn root_inputs(&self) -> Values {
        let component = self.plan.component(self.plan.root);
        let mut parameters = self.facts.parameters.clone();
        fill_defaults(component, &mut parameters);
        Values {
            parameters,
            artifacts: BTreeMap::new(),
        }
    }

    /// Everything that goes into a task, once what it waits for has ended.
    pub(super) fn resolve_inputs(
        &self,
        ix: TaskIx,
        parent: TaskIx,
        spec: &TaskSpec,
    ) -> Result<Values, TaskError> {
        let component = self.plan.component(spec.component);
        let budget = Budget::new(self.facts.values);
        let mut parameters = BTreeMap::new();
        // Constants may name the other inputs, so they come second.
        for constants in [false, true] {
            for (name, input) in &spec.parameters {
                if matches!(input.source, ParameterSource::Constant(_)) == constants
                    && let Some(value) = self.parameter(ix, parent, input, &parameters, &budget)?
                {
                    // What a constant names was counted while it was resolved.
                    if !constants {
                        let charged = budget.take(bytes_of(&value));
                        charged.map_err(|problem| {
                            input_error(format!("input parameter {name}: {problem}"))
                        })?;
                    }
                    parameters.insert(name.clone(), value);
                }
            }
        }
        let per_item = spec.iterator.as_ref().map(|spec| spec.item_input.as_str());
        for (name, decl) in &component.parameters {
            if per_item == Some(name.as_str()) {
                continue;
            }
            match parameters.remove(name) {
                Some(value) => {
                    parameters.insert(name.clone(), check_parameter(component, name, decl, value)?);
                }
                // A `TASK_CONFIG` is filled in for each attempt, when its command is built.
                None if decl.optional || decl.kind == ParameterType::TaskConfig => {}
                None => return Err(input_error(format!("input parameter {name} has no value"))),
            }
        }
        // The defaults of a command are filled in when it is built: until then a default differs from
        // the same value that was given, for `IfPresent` and for the fingerprint.
        if matches!(component.body, Body::Dag(_)) {
            fill_defaults(component, &mut parameters);
        }
        let artifacts = self.artifacts_of(parent, spec, component, per_item)?;
        Ok(Values {
            parameters,
            artifacts,
        })
    }

    fn parameter(
        &self,
        ix: TaskIx,
        parent: TaskIx,
        input: &ParameterInput,
        siblings: &BTreeMap<String, Value>,
        budget: &Budget,
    ) -> Result<Option<Value>, TaskError> {
        let value = match &input.source {
            ParameterSource::Constant(value) => {
                let facts = self.task_facts(ix);
                let resolved = placeholder::resolve_constant(value, &facts, siblings, budget);
                Some(resolved.map_err(|error| input_error(error.to_string()))?)
            }
            ParameterSource::Parent(name) => self.scope_parameter(parent, name).cloned(),
            // A producer that failed or was skipped gave nothing: the input is absent.
            ParameterSource::Task { task, output } => self
                .sibling(parent, *task)
                .and_then(|task| task.outputs.parameters.get(output))
                .cloned(),
            ParameterSource::FinalStatus(task) => self
                .sibling_ix(parent, *task)
                .map(|producer| self.final_status(producer)),
        };
        // Null is no value: an optional input is left out, and the caller refuses a missing one.
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        match &input.selector {
            None => Ok(Some(value)),
            Some(selector) => {
                let part = selector
                    .select(&value)
                    .map_err(|error| input_error(error.to_string()))?;
                Ok((!part.is_null()).then(|| values::normalize(part)))
            }
        }
    }

    fn artifacts_of(
        &self,
        parent: TaskIx,
        spec: &TaskSpec,
        component: &Component,
        per_item: Option<&str>,
    ) -> Result<BTreeMap<String, Vec<Arc<Artifact>>>, TaskError> {
        let mut artifacts = BTreeMap::new();
        for (name, source) in &spec.artifacts {
            let found = match source {
                ArtifactSource::Parent(input) => self.scope_artifacts(parent, input),
                ArtifactSource::Task { task, output } => self
                    .sibling(parent, *task)
                    .and_then(|task| task.outputs.artifacts.get(output))
                    .cloned(),
            };
            if let Some(found) = found {
                artifacts.insert(name.clone(), found);
            }
        }
        for (name, decl) in &component.artifacts {
            if !decl.optional && per_item != Some(name.as_str()) && !artifacts.contains_key(name) {
                return Err(input_error(format!("input artifact {name} has no value")));
            }
        }
        Ok(artifacts)
    }

    fn sibling(&self, parent: TaskIx, task: TaskSpecIx) -> Option<&Task> {
        self.sibling_ix(parent, task).map(|ix| self.task(ix))
    }

    fn sibling_ix(&self, parent: TaskIx, task: TaskSpecIx) -> Option<TaskIx> {
        let first = self.task(parent).children?;
        Some(TaskIx(first.0 + task.0))
    }

    /// An input parameter of the DAG that `scope` runs. An iteration holds its item only and shares
    /// everything else with its loop, so that long lists are not copied per iteration.
    pub(super) fn scope_parameter(&self, scope: TaskIx, name: &str) -> Option<&Value> {
        let task = self.task(scope);
        let own = task.inputs.parameters.get(name);
        match (own, task.iteration(), task.parent) {
            (None, Some(_), Some(of)) => self.task(of).inputs.parameters.get(name),
            _ => own,
        }
    }

    fn scope_artifacts(&self, scope: TaskIx, name: &str) -> Option<Vec<Arc<Artifact>>> {
        let task = self.task(scope);
        let own = task.inputs.artifacts.get(name);
        match (own, task.iteration(), task.parent) {
            (None, Some(_), Some(of)) => self.task(of).inputs.artifacts.get(name).cloned(),
            _ => own.cloned(),
        }
    }

    /// What a condition of the task looks at. It was compiled for the declared types, so what is
    /// declared as text is text there, also where the value kept its own type.
    pub(super) fn condition_inputs(&self, ix: TaskIx) -> BTreeMap<String, Value> {
        let mut parameters = self.task(ix).inputs.parameters.clone();
        for (name, decl) in &self.component(ix).parameters {
            if let Some(value) = parameters.get_mut(name)
                && decl.kind == ParameterType::String
                && !value.is_string()
            {
                *value = Value::String(value.to_string());
            }
        }
        parameters
    }

    /// The item of an iteration; with everything else that goes in where a command is iterated.
    pub(super) fn iteration_inputs(
        &self,
        of: TaskIx,
        iteration: TaskIx,
    ) -> Result<Values, TaskError> {
        let own = self.task(of);
        let number = self.task(iteration).iteration().unwrap_or(0) as usize;
        let (Some(spec), Some(progress)) = (self.loop_spec(of), own.progress.as_ref()) else {
            return Ok(Values::default());
        };
        let component = self.plan.component(own.component);
        // Tasks of a DAG look up everything but the item at the loop (`scope_parameter`). A command has
        // its inputs in itself.
        let mut inputs = match component.body {
            Body::Dag(_) => Values::default(),
            Body::Container(_) | Body::Importer(_) => own.inputs.clone(),
        };
        if let LoopItems::Artifact(list) = &spec.items {
            let item = own
                .inputs
                .artifacts
                .get(list)
                .and_then(|list| list.get(number));
            let item = item.map(Arc::clone).into_iter().collect();
            inputs.artifacts.insert(spec.item_input.clone(), item);
        } else if let Some(item) = progress.items.get(number) {
            let name = &spec.item_input;
            let item = match (&component.body, component.parameters.get(name)) {
                // The compiler types the items of a DAG loosely; a selector picks the typed part.
                (Body::Dag(_), _) | (_, None) => values::normalize(item.clone()),
                (_, Some(decl)) => check_parameter(component, name, decl, item.clone())?,
            };
            inputs.parameters.insert(name.clone(), item);
        }
        Ok(inputs)
    }

    /// The URI and the metadata that an importer asks for.
    pub(crate) fn import_request(
        &self,
        ix: TaskIx,
        importer: &Importer,
    ) -> Result<(String, Map<String, Value>), TaskError> {
        let inputs = &self.task(ix).inputs.parameters;
        let facts = self.task_facts(ix);
        let budget = Budget::new(self.facts.values);
        let resolve = |value: &Value| {
            placeholder::resolve_constant(value, &facts, inputs, &budget)
                .map_err(|error| input_error(error.to_string()))
        };
        let uri = match &importer.uri {
            ImporterUri::Constant(uri) => resolve(&Value::String(uri.clone()))?,
            // What an input contains is no template.
            ImporterUri::Parameter(name) => inputs.get(name).cloned().ok_or_else(|| {
                input_error(format!("the importer's URI, input {name}, has no value"))
            })?,
        };
        let uri = values::to_text(&uri);
        let mut metadata = Map::new();
        for (key, value) in &importer.metadata {
            let key = values::to_text(&resolve(&Value::String(key.clone()))?);
            let value = resolve(value)?;
            values::check_nesting(&value)
                .map_err(|problem| input_error(format!("metadata {key:?}: {problem}")))?;
            metadata.insert(key, value);
        }
        Ok((uri, metadata))
    }

    /// Where an importer puts what it brings to the workspace, as upstream lays it out.
    pub fn workspace_copy_path(&self, uri: &str) -> Result<String, TaskError> {
        let Some(workspace) = &self.facts.workspace_path else {
            return Err(input_error(
                "downloadToWorkspace needs pipelineConfig.workspace, which is not set",
            ));
        };
        let refused =
            |why: &str| input_error(format!("{uri} cannot be copied to the workspace: {why}"));
        if uri.starts_with("oci://") {
            return Err(refused(
                "tasks find the content of an image without that, leave downloadToWorkspace out",
            ));
        }
        let known = ["s3://", "minio://", "file://", "/"];
        if !known.iter().any(|start| uri.starts_with(start)) {
            return Err(refused(
                "use an s3:// or minio:// URI, or where tasks run on this machine a file:// URI",
            ));
        }
        let path = local_path(uri);
        if path.split('/').any(|part| part == "..") {
            return Err(refused("it has .. in it, which would lead out of there"));
        }
        let inner = path.trim_start_matches('/');
        Ok(format!("{workspace}/.artifacts/{inner}"))
    }

    /// Refuses what only Kubernetes can give, where there is none.
    pub(super) fn check_platform(&self, ix: TaskIx) -> Result<(), TaskError> {
        let Body::Container(container) = &self.component(ix).body else {
            return Ok(());
        };
        if self.facts.kubernetes {
            return Ok(());
        }
        let passthroughs = &self.component(ix).passthroughs;
        platform::check_local(container, passthroughs, |source| {
            self.lookup_source(ix, source)
        })
        .map_err(|message| TaskError::new("Unsupported", message))
    }

    /// What the task asks of Kubernetes for its own pod.
    pub fn platform(&self, ix: TaskIx) -> Map<String, Value> {
        let passthroughs = &self.component(ix).passthroughs;
        passthroughs.applied(self.platform_asked(ix))
    }

    /// All that the task asks of Kubernetes, its parameters as the constants that they are now.
    pub(crate) fn platform_asked(&self, ix: TaskIx) -> Map<String, Value> {
        match &self.component(ix).body {
            Body::Container(container) => {
                platform::resolve(container, |source| self.lookup_source(ix, source))
            }
            _ => Map::new(),
        }
    }

    /// A value in the scope around a task.
    fn lookup_source(&self, ix: TaskIx, source: &platform::Source) -> Option<Value> {
        // Upstream resolves these in the scope of the DAG around the task, and not among its inputs.
        let (parent, _) = self.parent_and_spec(&self.plan, self.task_of_iteration(ix))?;
        match source {
            platform::Source::Parent(name) => self.scope_parameter(parent, name).cloned(),
            platform::Source::Task { task, output } => {
                let Body::Dag(dag) = &self.component(parent).body else {
                    return None;
                };
                let index = dag.tasks.iter().position(|sibling| &sibling.key == task)?;
                let index = TaskSpecIx(super::flow::count(index));
                self.sibling(parent, index)?
                    .outputs
                    .parameters
                    .get(output)
                    .cloned()
            }
        }
    }

    /// The task that has a specification of its own: the loop for an iteration, else the task itself.
    pub(super) fn task_of_iteration(&self, ix: TaskIx) -> TaskIx {
        match (self.task(ix).iteration(), self.task(ix).parent) {
            (Some(_), Some(parent)) => parent,
            _ => ix,
        }
    }
}

/// A value as the component declares it. A DAG hands on what it gets: what it declares as text,
/// which is what compilers write where they do not know the type, becomes text at the executor that
/// wants text.
fn check_parameter(
    component: &Component,
    name: &str,
    decl: &ParameterInputDecl,
    value: Value,
) -> Result<Value, TaskError> {
    let error = |problem: String| input_error(format!("input parameter {name}: {problem}"));
    values::check_nesting(&value).map_err(error)?;
    let is_passed_on = matches!(component.body, Body::Dag(_)) && decl.kind == ParameterType::String;
    let unconverted = is_passed_on.then(|| values::normalize(value.clone()));
    let value = values::coerce(decl.kind, value).map_err(error)?;
    if decl.literals.is_empty() || decl.literals.contains(&value) {
        return Ok(unconverted.unwrap_or(value));
    }
    let allowed: Vec<_> = decl.literals.iter().map(values::to_text).collect();
    let (allowed, value) = (allowed.join(", "), values::excerpt(&value));
    Err(input_error(format!(
        "input parameter {name} is {value}, but must be one of {allowed}"
    )))
}

/// Adds the component's defaults for what has no value.
pub(crate) fn fill_defaults(component: &Component, parameters: &mut BTreeMap<String, Value>) {
    for (name, decl) in &component.parameters {
        if let Some(default) = &decl.default
            && !parameters.contains_key(name)
        {
            parameters.insert(name.clone(), default.clone());
        }
    }
}
