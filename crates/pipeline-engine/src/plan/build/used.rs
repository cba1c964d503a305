//! Which inputs of nested DAGs something inside uses.
//!
//! The SDK's compiler declares inputs on the DAG of an exit handler or a loop that nothing in it
//! uses, and gives them no value, or one of an input that is not there. A task that is a command or
//! an importer uses whatever it is given. A task that is a nested DAG uses an input that is its
//! items, or is named in its condition or in a text beside it; what it only passes to the DAG's
//! input of that name is used if that input is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Source;
use crate::ir;
use crate::plan::Component;

/// An input: its component and its name.
type Input<'s> = (&'s str, &'s str);

/// The inputs that are used, of DAGs.
#[derive(Debug, Default)]
pub(super) struct UsedInputs<'s> {
    parameters: BTreeSet<Input<'s>>,
    artifacts: BTreeSet<Input<'s>>,
}

/// Makes the inputs of nested DAGs that nothing inside uses optional.
pub(super) fn mark_unused_optional(source: &Source<'_>, components: &mut [Component]) {
    // Not the root: its inputs are parameters of the run, which must be given, used or not.
    for component in components.iter_mut().skip(1) {
        let name = component.name.as_str();
        if source.dag(name).is_none() {
            continue;
        }
        for (input, decl) in &mut component.parameters {
            decl.optional |= !source.used.parameters.contains(&(name, input));
        }
        for (input, decl) in &mut component.artifacts {
            decl.optional |= !source.used.artifacts.contains(&(name, input));
        }
    }
}

/// Inputs of one kind: those used for sure, and those used if another one is.
#[derive(Default)]
struct InputUsage<'s> {
    used: BTreeSet<Input<'s>>,
    /// By the input of a nested DAG: the inputs around it that are passed to it.
    forwarded: BTreeMap<Input<'s>, Vec<Input<'s>>>,
}

impl<'s> InputUsage<'s> {
    /// Adds that `outer` is given to a task: to the input `inner` of a nested DAG, or to something that
    /// uses it.
    fn add(&mut self, outer: Input<'s>, inner: Option<Input<'s>>) {
        match inner {
            Some(inner) => self.forwarded.entry(inner).or_default().push(outer),
            None => drop(self.used.insert(outer)),
        }
    }

    /// Follows what is passed from the inside to the outside. Each input is looked at once, so
    /// neither the depth of a pipeline nor the order of its components matters.
    fn resolve_used(mut self) -> BTreeSet<Input<'s>> {
        let mut open: Vec<_> = self.used.iter().copied().collect();
        while let Some(inner) = open.pop() {
            for outer in self.forwarded.remove(&inner).unwrap_or_default() {
                if self.used.insert(outer) {
                    open.push(outer);
                }
            }
        }
        self.used
    }
}

impl<'s> UsedInputs<'s> {
    /// What the DAGs of the pipeline use.
    pub(super) fn of(source: &Source<'s>) -> Self {
        let mut parameters = InputUsage::default();
        let mut artifacts = InputUsage::default();
        let mut settings = BTreeMap::new();
        for (name, component) in &source.spec.components {
            for task in component.dag.iter().flat_map(|dag| dag.tasks.values()) {
                add_parameters(source, name, task, &mut parameters);
                add_artifacts(source, name, task, &mut artifacts);
                if let Some(label) = source.label(&task.component_ref.name) {
                    let named = settings
                        .entry(label)
                        .or_insert_with(|| source.platform_inputs(label));
                    add_platform_inputs(name, component, named, &mut parameters.used);
                }
            }
        }
        Self {
            parameters: parameters.resolve_used(),
            artifacts: artifacts.resolve_used(),
        }
    }
}

/// Adds what the task does with parameters of its DAG, `dag_name`.
fn add_parameters<'s>(
    source: &Source<'s>,
    dag_name: &'s str,
    task: &'s ir::TaskSpec,
    usage: &mut InputUsage<'s>,
) {
    let component_name = task.component_ref.name.as_str();
    let inner = source.dag(component_name);
    let read_by_task = inner.map(|_| inputs_read_by_task(task)).unwrap_or_default();
    for (input, from) in &task.inputs.parameters {
        let Some(parent) = &from.component_input_parameter else {
            continue;
        };
        let declared =
            inner.is_some_and(|dag| dag.input_definitions.parameters.contains_key(input));
        let forwarded = declared && !read_by_task.contains(input.as_str());
        usage.add(
            (dag_name, parent),
            forwarded.then_some((component_name, input)),
        );
    }
}

/// Adds what the task does with artifacts of its DAG, `dag_name`.
fn add_artifacts<'s>(
    source: &Source<'s>,
    dag_name: &'s str,
    task: &'s ir::TaskSpec,
    usage: &mut InputUsage<'s>,
) {
    let component_name = task.component_ref.name.as_str();
    let nested = source.dag(component_name).is_some();
    let items = task.artifact_iterator.as_ref();
    let items = items.map(|iterator| iterator.items.input_artifact.as_str());
    for (input, from) in &task.inputs.artifacts {
        let Some(parent) = &from.component_input_artifact else {
            continue;
        };
        let forwarded = nested && items != Some(input);
        usage.add(
            (dag_name, parent),
            forwarded.then_some((component_name, input)),
        );
    }
}

/// Adds those of the `named` inputs that the DAG declares.
fn add_platform_inputs<'s>(
    dag: &'s str,
    component: &'s ir::ComponentSpec,
    named: &BTreeSet<&'s str>,
    used: &mut BTreeSet<Input<'s>>,
) {
    let declared = &component.input_definitions.parameters;
    // The smaller one is gone through: many tasks may share the settings of one executor.
    if named.len() < declared.len() {
        let names = named.iter().filter(|name| declared.contains_key(**name));
        used.extend(names.map(|name| (dag, *name)));
    } else {
        let names = declared.keys().map(String::as_str);
        used.extend(
            names
                .filter(|name| named.contains(name))
                .map(|name| (dag, name)),
        );
    }
}

/// The inputs that the task itself uses: as its items, in its condition, or in a text.
fn inputs_read_by_task(task: &ir::TaskSpec) -> BTreeSet<&str> {
    let items = task.parameter_iterator.as_ref().map(|all| &all.items);
    let mut texts = vec![task.trigger_policy.condition.as_str()];
    texts.extend(items.and_then(|items| items.raw.as_deref()));
    for from in task.inputs.parameters.values() {
        let Some(given) = &from.runtime_value else {
            continue;
        };
        let old = given.constant_value.iter().flat_map(|kinds| kinds.values());
        given.constant.iter().chain(old).for_each(|constant| {
            add_texts(constant, &mut texts);
        });
    }
    let mut used: BTreeSet<_> = texts
        .into_iter()
        .flat_map(identifiers)
        .filter(|identifier| task.inputs.parameters.contains_key(*identifier))
        .collect();
    used.extend(items.and_then(|items| items.input_parameter.as_deref()));
    // A name that has quotes in it cannot be told apart from what is around it.
    let names = task.inputs.parameters.keys().map(String::as_str);
    used.extend(names.filter(|name| name.contains(QUOTES)));
    used
}

/// What begins and ends a name in a placeholder and in an expression.
const QUOTES: [char; 3] = ['\'', '"', '\\'];

/// What a text may name: whatever is between two quotes, and its words.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    // Finds too much rather than too little: a word that names no placeholder only keeps an input of
    // that name required.
    let quoted = text.split(QUOTES);
    let bare = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    quoted.chain(bare)
}

/// Every text inside a value, names of fields too.
fn add_texts<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| add_texts(item, texts)),
        Value::Object(fields) => {
            for (name, value) in fields {
                texts.push(name);
                add_texts(value, texts);
            }
        }
        _ => {}
    }
}

impl<'s> Source<'s> {
    /// Whether the component is a DAG that declares the input and uses it nowhere.
    pub(super) fn is_unused(&self, component: &str, input: &str) -> bool {
        self.dag(component).is_some_and(|dag| {
            dag.input_definitions.parameters.contains_key(input)
                && !self.used.parameters.contains(&(component, input))
        })
    }

    /// The component of this name, if it is a DAG.
    fn dag(&self, name: &str) -> Option<&'s ir::ComponentSpec> {
        let component = self.spec.components.get(name)?;
        component.dag.as_ref().map(|_| component)
    }

    /// The executor of a component that is none of the DAGs.
    fn label(&self, component: &str) -> Option<&'s str> {
        let component = self.spec.components.get(component)?;
        component.executor_label.as_deref()
    }

    /// Inputs of the DAG around a command that its platform's settings name.
    fn platform_inputs(&self, label: &str) -> BTreeSet<&'s str> {
        let executors = self.platform.map(|all| &all.deployment_spec.executors);
        let settings = executors.and_then(|executors| executors.get(label));
        let mut found = BTreeSet::new();
        let mut open: Vec<&Value> = settings.into_iter().flat_map(|all| all.values()).collect();
        while let Some(value) = open.pop() {
            match value {
                Value::Object(fields) => {
                    let input = fields.get("componentInputParameter");
                    found.extend(input.and_then(Value::as_str));
                    open.extend(fields.values());
                }
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        found
    }
}
