//! Which inputs of nested DAGs something inside reads.
//!
//! The SDK's compiler hands a DAG around an exit handler or a loop inputs that nothing in it uses, and
//! gives them no value, or one of an input that is not there. An input that is only handed on to such a one is not read either. What a
//! command or an importer gets is read, whatever it does with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Source;
use crate::domain::ir;
use crate::domain::plan::Component;

/// The names that are read, by component.
#[derive(Debug, Default)]
pub(super) struct Needs<'s> {
    parameters: BTreeMap<&'s str, BTreeSet<&'s str>>,
    artifacts: BTreeMap<&'s str, BTreeSet<&'s str>>,
}

/// Makes the inputs of nested DAGs that nothing inside reads optional.
pub(super) fn relax(source: &Source<'_>, components: &mut [Component]) {
    for component in components.iter_mut().skip(1) {
        let name = component.name.as_str();
        if source.dag(name).is_none() {
            continue;
        }
        for (input, decl) in &mut component.parameters {
            decl.optional |= !has(&source.needs.parameters, name, input);
        }
        for (input, decl) in &mut component.artifacts {
            decl.optional |= !has(&source.needs.artifacts, name, input);
        }
    }
}

impl<'s> Needs<'s> {
    /// What the DAGs of the pipeline read.
    pub(super) fn of(source: &Source<'s>) -> Self {
        let mut needs = Self::default();
        // Whether an input is read may hang on a component further down; a name is only ever added.
        loop {
            let mut grown = false;
            for (name, component) in &source.spec.components {
                for task in component.dag.iter().flat_map(|dag| dag.tasks.values()) {
                    grown |= needs.add(source, name, task);
                }
            }
            if !grown {
                return needs;
            }
        }
    }

    /// Adds what the task reads of the DAG `around` it.
    fn add(&mut self, source: &Source<'s>, around: &'s str, task: &'s ir::TaskSpec) -> bool {
        let called = task.component_ref.name.as_str();
        let inner = source.dag(called);
        let mut grown = false;
        for (input, from) in &task.inputs.parameters {
            let handed_on = inner.is_some_and(|component| {
                component.input_definitions.parameters.contains_key(input)
            });
            let read_inside = has(&self.parameters, called, input);
            if let Some(parent) = &from.component_input_parameter
                && (!handed_on || read_inside || reads_itself(task, input))
            {
                grown |= self.parameters.entry(around).or_default().insert(parent);
            }
        }
        for (input, from) in &task.inputs.artifacts {
            let iterated = task
                .artifact_iterator
                .as_ref()
                .is_some_and(|iterator| iterator.items.input_artifact == *input);
            let read_inside = has(&self.artifacts, called, input);
            if let Some(parent) = &from.component_input_artifact
                && (inner.is_none() || read_inside || iterated)
            {
                grown |= self.artifacts.entry(around).or_default().insert(parent);
            }
        }
        for parent in source.platform_inputs(called) {
            grown |= self.parameters.entry(around).or_default().insert(parent);
        }
        grown
    }
}

fn has(all: &BTreeMap<&str, BTreeSet<&str>>, component: &str, input: &str) -> bool {
    all.get(component)
        .is_some_and(|names| names.contains(input))
}

/// Whether the task itself uses its input: as its items, in its condition, or in a text.
fn reads_itself(task: &ir::TaskSpec, input: &str) -> bool {
    let iterated = task
        .parameter_iterator
        .as_ref()
        .is_some_and(|iterator| iterator.items.input_parameter.as_deref() == Some(input));
    let named = |text: &str| text.contains(input);
    let constants = task.inputs.parameters.values();
    let mut constants = constants.filter_map(|from| from.runtime_value.as_ref());
    let raw = task
        .parameter_iterator
        .as_ref()
        .and_then(|iterator| iterator.items.raw.as_deref());
    iterated
        || named(&task.trigger_policy.condition)
        || raw.is_some_and(named)
        || constants.any(|constant| {
            let constant = super::task::constant(constant);
            constant.is_some_and(|value| named(&value.to_string()))
        })
}

impl<'s> Source<'s> {
    /// Whether the component is a DAG that declares the input and reads it nowhere.
    pub(super) fn is_unread(&self, component: &str, input: &str) -> bool {
        self.dag(component).is_some_and(|dag| {
            dag.input_definitions.parameters.contains_key(input)
                && !has(&self.needs.parameters, component, input)
        })
    }

    /// The component of this name, if it is a DAG.
    fn dag(&self, name: &str) -> Option<&'s ir::ComponentSpec> {
        let component = self.spec.components.get(name)?;
        component.dag.as_ref().map(|_| component)
    }

    /// Inputs of the DAG around a command that its platform's settings name.
    fn platform_inputs(&self, component: &str) -> Vec<&'s str> {
        let settings = || {
            let label = self
                .spec
                .components
                .get(component)?
                .executor_label
                .as_ref()?;
            self.platform?.deployment_spec.executors.get(label)
        };
        let mut found = Vec::new();
        let mut open: Vec<&Value> = settings()
            .into_iter()
            .flat_map(|all| all.values())
            .collect();
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
