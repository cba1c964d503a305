//! One task: its component, where its inputs come from, when and how often it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::Value;

use super::{Faults, Source};
use crate::expr::Expr;
use crate::plan::{
    ArtifactSource, CachePolicy, Component, LoopItems, LoopSpec, ParameterInput, ParameterSource,
    ParameterType, RetryPolicy, TaskSpec, TaskSpecIx, TriggerStrategy,
};
use crate::{ir, values};

/// What a task may refer to.
pub(super) struct Scope<'s> {
    pub(super) source: &'s Source<'s>,
    pub(super) components: &'s [Component],
    /// The component whose DAG it is.
    pub(super) own: &'s Component,
    pub(super) spec: &'s ir::DagSpec,
    pub(super) order: &'s BTreeMap<&'s str, TaskSpecIx>,
}

impl<'s> Scope<'s> {
    /// A sibling and its component.
    pub(super) fn producer(
        &self,
        field: &str,
        key: &str,
        faults: &mut Faults,
    ) -> Option<(TaskSpecIx, &'s Component)> {
        let (Some(task), Some(spec)) = (self.order.get(key), self.spec.tasks.get(key)) else {
            faults.add(
                format!("{field}.producerTask"),
                format!("there is no task {key:?} here"),
            );
            return None;
        };
        // A missing component is reported where the task is.
        let at = self.source.component_ix(&spec.component_ref.name)?;
        Some((*task, &self.components[at.0 as usize]))
    }
}

pub(super) fn task(
    scope: &Scope<'_>,
    key: &str,
    field: &str,
    spec: &ir::TaskSpec,
    faults: &mut Faults,
) -> Option<TaskSpec> {
    let name = &spec.component_ref.name;
    let Some(at) = scope.source.component_ix(name) else {
        faults.add(
            format!("{field}.componentRef.name"),
            format!("components has no {name:?}"),
        );
        return None;
    };
    let component = &scope.components[at.0 as usize];
    // `dependentTasks` need not list every producer of an input: each source adds its own.
    let mut upstream = BTreeSet::new();
    for dependency in &spec.dependent_tasks {
        match scope.order.get(dependency.as_str()) {
            Some(task) => drop(upstream.insert(*task)),
            None => faults.add(
                format!("{field}.dependentTasks"),
                format!("there is no task {dependency:?} here"),
            ),
        }
    }
    let parameters = parameters(scope, component, field, spec, &mut upstream, faults);
    let artifacts = artifacts(scope, component, field, spec, &mut upstream, faults);
    let iterator = iterator(component, field, spec, faults);
    check_required(component, field, spec, iterator.as_ref(), faults);
    let display = &spec.task_info.name;
    Some(TaskSpec {
        key: key.to_owned(),
        display_name: if display.is_empty() { key } else { display }.to_owned(),
        component: at,
        parameters,
        artifacts,
        upstream: upstream.into_iter().collect(),
        downstream: Vec::new(),
        strategy: strategy(field, &spec.trigger_policy.strategy, faults),
        condition: expression(
            &format!("{field}.triggerPolicy.condition"),
            &spec.trigger_policy.condition,
            faults,
        ),
        iterator,
        retry: spec
            .retry_policy
            .as_ref()
            .and_then(|retry| self::retry(field, retry, faults)),
        cache: CachePolicy {
            enabled: spec.caching_options.enable_cache,
            key: Some(spec.caching_options.cache_key.clone()).filter(|key| !key.is_empty()),
        },
    })
}

fn expression(field: &str, text: &str, faults: &mut Faults) -> Option<Expr> {
    if text.is_empty() {
        return None;
    }
    match Expr::parse(text) {
        Ok(expression) => Some(expression),
        Err(error) => {
            faults.add(field, format!("cannot read {text:?}: {error}"));
            None
        }
    }
}

fn strategy(field: &str, name: &str, faults: &mut Faults) -> TriggerStrategy {
    match name {
        "" | "TRIGGER_STRATEGY_UNSPECIFIED" | "ALL_UPSTREAM_TASKS_SUCCEEDED" => {
            TriggerStrategy::AllSucceeded
        }
        "ALL_UPSTREAM_TASKS_COMPLETED" => TriggerStrategy::AllCompleted,
        other => {
            let field = format!("{field}.triggerPolicy.strategy");
            faults.add(field, format!("unknown strategy {other:?}"));
            TriggerStrategy::AllSucceeded
        }
    }
}

fn parameters(
    scope: &Scope<'_>,
    component: &Component,
    field: &str,
    spec: &ir::TaskSpec,
    upstream: &mut BTreeSet<TaskSpecIx>,
    faults: &mut Faults,
) -> BTreeMap<String, ParameterInput> {
    let mut parameters = BTreeMap::new();
    for (name, input) in &spec.inputs.parameters {
        let field = format!("{field}.inputs.parameters.{name}");
        // The SDK's compiler may fill an unused input of a nested DAG from an input that the DAG around
        // it does not have (`used`).
        if let Some(parent) = &input.component_input_parameter
            && !scope.own.parameters.contains_key(parent)
            && scope.source.is_unused(&component.name, name)
        {
            continue;
        }
        let Some((source, kind)) = source(scope, &field, input, upstream, faults) else {
            continue;
        };
        let selector = expression(
            &format!("{field}.parameterExpressionSelector"),
            &input.parameter_expression_selector,
            faults,
        );
        let wanted = component.parameters.get(name).map(|decl| decl.kind);
        if let (Some(kind), Some(wanted), None) = (kind, wanted, &selector)
            && !fits(kind, wanted)
        {
            let (kind, wanted) = (kind.noun(), wanted.noun());
            faults.add(
                &field,
                format!(
                    "it gets {kind}, but component {} expects {wanted}",
                    component.name
                ),
            );
        }
        parameters.insert(name.clone(), ParameterInput { source, selector });
    }
    parameters
}

/// Whether a value of one type may be given where another is expected. Text may hold anything that
/// a loop or a selector takes apart later.
fn fits(given: ParameterType, wanted: ParameterType) -> bool {
    use ParameterType::{Double, Integer, String, Struct, TaskFinalStatus};
    given == wanted
        || wanted == String
        || given == String
        || matches!((given, wanted), (Integer, Double) | (Double, Integer))
        || matches!(
            (given, wanted),
            (TaskFinalStatus, Struct) | (Struct, TaskFinalStatus)
        )
}

fn source(
    scope: &Scope<'_>,
    field: &str,
    input: &ir::InputParameter,
    upstream: &mut BTreeSet<TaskSpecIx>,
    faults: &mut Faults,
) -> Option<(ParameterSource, Option<ParameterType>)> {
    if let Some(from) = &input.task_output_parameter {
        let field = format!("{field}.taskOutputParameter");
        let (task, component) = scope.producer(&field, &from.producer_task, faults)?;
        upstream.insert(task);
        let output = from.output_parameter_key.clone();
        let Some(kind) = component.output_parameters.get(&output) else {
            let producer = &from.producer_task;
            faults.add(
                format!("{field}.outputParameterKey"),
                format!("task {producer:?} has no output parameter {output:?}"),
            );
            return None;
        };
        // A loop gives the list of what its iterations gave.
        let looped = scope
            .spec
            .tasks
            .get(&from.producer_task)
            .is_some_and(has_iterator);
        return Some((
            ParameterSource::Task { task, output },
            (!looped).then_some(*kind),
        ));
    }
    if let Some(name) = &input.component_input_parameter {
        let Some(decl) = scope.own.parameters.get(name) else {
            faults.add(
                format!("{field}.componentInputParameter"),
                format!(
                    "component {} has no input parameter {name:?}",
                    scope.own.name
                ),
            );
            return None;
        };
        return Some((ParameterSource::Parent(name.clone()), Some(decl.kind)));
    }
    if let Some(status) = &input.task_final_status {
        let field = format!("{field}.taskFinalStatus");
        let (task, _) = scope.producer(&field, &status.producer_task, faults)?;
        upstream.insert(task);
        return Some((
            ParameterSource::FinalStatus(task),
            Some(ParameterType::TaskFinalStatus),
        ));
    }
    let Some(runtime) = &input.runtime_value else {
        faults.add(field, "an input needs a source");
        return None;
    };
    if runtime.runtime_parameter.is_some() {
        let field = format!("{field}.runtimeValue.runtimeParameter");
        faults.add(field, "not supported: use componentInputParameter");
        return None;
    }
    // The type of a constant is checked in the run: its placeholders may stand for any value.
    let constant = constant(runtime).unwrap_or(Value::Null);
    Some((ParameterSource::Constant(constant), None))
}

fn has_iterator(task: &ir::TaskSpec) -> bool {
    task.artifact_iterator.is_some() || task.parameter_iterator.is_some()
}

/// A constant in the new or the old way of writing it.
pub(super) fn constant(value: &ir::RuntimeValue) -> Option<Value> {
    if let Some(constant) = &value.constant {
        return Some(values::normalize(constant.clone()));
    }
    let old = value.constant_value.as_ref()?;
    let (kind, constant) = old.iter().next()?;
    Some(match (kind.as_str(), constant) {
        // Protobuf prints 64-bit integers as texts.
        ("intValue", Value::String(text)) => text.parse::<i64>().map(Value::from).ok()?,
        _ => values::normalize(constant.clone()),
    })
}

fn artifacts(
    scope: &Scope<'_>,
    component: &Component,
    field: &str,
    spec: &ir::TaskSpec,
    upstream: &mut BTreeSet<TaskSpecIx>,
    faults: &mut Faults,
) -> BTreeMap<String, ArtifactSource> {
    let mut artifacts = BTreeMap::new();
    for (name, input) in &spec.inputs.artifacts {
        let field = format!("{field}.inputs.artifacts.{name}");
        if !component.artifacts.contains_key(name) {
            let component = &component.name;
            faults.add(
                &field,
                format!("component {component} has no input artifact {name:?}"),
            );
        }
        if let Some(from) = &input.task_output_artifact {
            let field = format!("{field}.taskOutputArtifact");
            let Some((task, producer)) = scope.producer(&field, &from.producer_task, faults) else {
                continue;
            };
            upstream.insert(task);
            let output = from.output_artifact_key.clone();
            if !producer.output_artifacts.contains_key(&output) {
                let producer = &from.producer_task;
                faults.add(
                    format!("{field}.outputArtifactKey"),
                    format!("task {producer:?} has no output artifact {output:?}"),
                );
            }
            artifacts.insert(name.clone(), ArtifactSource::Task { task, output });
        } else if let Some(parent) = &input.component_input_artifact {
            if !scope.own.artifacts.contains_key(parent) {
                let own = &scope.own.name;
                faults.add(
                    format!("{field}.componentInputArtifact"),
                    format!("component {own} has no input artifact {parent:?}"),
                );
            }
            artifacts.insert(name.clone(), ArtifactSource::Parent(parent.clone()));
        } else {
            faults.add(&field, "an input needs a source");
        }
    }
    artifacts
}

fn iterator(
    component: &Component,
    field: &str,
    spec: &ir::TaskSpec,
    faults: &mut Faults,
) -> Option<LoopSpec> {
    let limit = spec.iterator_policy.parallelism_limit;
    let parallelism = if let Ok(limit) = u32::try_from(limit) {
        NonZeroU32::new(limit)
    } else {
        let field = format!("{field}.iteratorPolicy.parallelismLimit");
        faults.add(
            field,
            format!("{limit} is not a number of iterations; 0 is for no limit"),
        );
        None
    };
    if let Some(artifacts) = &spec.artifact_iterator {
        let field = format!("{field}.artifactIterator");
        let list = artifacts.items.input_artifact.clone();
        if !spec.inputs.artifacts.contains_key(&list) {
            faults.add(
                format!("{field}.items.inputArtifact"),
                format!("there is no input {list:?}"),
            );
        }
        check_item(&component.artifacts, &artifacts.item_input, &field, faults);
        let item_input = artifacts.item_input.clone();
        return Some(LoopSpec {
            items: LoopItems::Artifact(list),
            item_input,
            parallelism,
        });
    }
    let parameters = spec.parameter_iterator.as_ref()?;
    let field = format!("{field}.parameterIterator");
    check_item(
        &component.parameters,
        &parameters.item_input,
        &field,
        faults,
    );
    let items = match (&parameters.items.raw, &parameters.items.input_parameter) {
        (Some(raw), _) => match serde_json::from_str::<Vec<Value>>(raw) {
            Ok(items) => LoopItems::Raw(items.into_iter().map(values::normalize).collect()),
            Err(error) => {
                faults.add(
                    format!("{field}.items.raw"),
                    format!("not a JSON list: {error}"),
                );
                return None;
            }
        },
        (None, Some(name)) => {
            if !spec.inputs.parameters.contains_key(name) {
                faults.add(
                    format!("{field}.items.inputParameter"),
                    format!("there is no input {name:?}"),
                );
            }
            LoopItems::Parameter(name.clone())
        }
        (None, None) => {
            faults.add(format!("{field}.items"), "raw or inputParameter is needed");
            return None;
        }
    };
    Some(LoopSpec {
        items,
        item_input: parameters.item_input.clone(),
        parallelism,
    })
}

fn check_item<T>(inputs: &BTreeMap<String, T>, item: &str, field: &str, faults: &mut Faults) {
    if !inputs.contains_key(item) {
        let field = format!("{field}.itemInput");
        faults.add(field, format!("the component has no input {item:?}"));
    }
}

/// Inputs that must be given and are not.
fn check_required(
    component: &Component,
    field: &str,
    spec: &ir::TaskSpec,
    iterator: Option<&LoopSpec>,
    faults: &mut Faults,
) {
    let item = iterator.map(|spec| spec.item_input.as_str());
    for (name, decl) in &component.parameters {
        let given = spec.inputs.parameters.contains_key(name) || item == Some(name);
        let of_runtime = decl.kind == ParameterType::TaskConfig;
        if !given && !decl.optional && !of_runtime {
            let component = &component.name;
            faults.add(
                format!("{field}.inputs.parameters"),
                format!("component {component} requires the parameter {name:?}"),
            );
        }
    }
    for (name, decl) in &component.artifacts {
        let given = spec.inputs.artifacts.contains_key(name) || item == Some(name);
        if !given && !decl.optional {
            let component = &component.name;
            faults.add(
                format!("{field}.inputs.artifacts"),
                format!("component {component} requires the artifact {name:?}"),
            );
        }
    }
}

fn retry(field: &str, spec: &ir::RetryPolicySpec, faults: &mut Faults) -> Option<RetryPolicy> {
    let field = format!("{field}.retryPolicy");
    let Ok(max_retries) = u32::try_from(spec.max_retry_count) else {
        faults.add(format!("{field}.maxRetryCount"), "it must not be negative");
        return None;
    };
    let mut seconds = |name: &str, text: &str, default: u64| {
        if text.is_empty() {
            return Duration::from_secs(default);
        }
        let number = text
            .strip_suffix('s')
            .and_then(|number| number.parse::<f64>().ok());
        let duration = number.and_then(|number| Duration::try_from_secs_f64(number).ok());
        duration.unwrap_or_else(|| {
            let field = format!("{field}.{name}");
            faults.add(field, format!("{text:?} is not a duration such as 30s"));
            Duration::ZERO
        })
    };
    // The defaults are those that the SDK writes.
    let backoff = seconds("backoffDuration", &spec.backoff_duration, 0);
    let backoff_max = seconds("backoffMaxDuration", &spec.backoff_max_duration, 3600);
    let factor = match spec.backoff_factor {
        factor if factor < 0.0 => {
            faults.add(format!("{field}.backoffFactor"), "it must not be negative");
            return None;
        }
        0.0 => 2.0,
        factor => factor,
    };
    Some(RetryPolicy {
        max_retries,
        backoff,
        factor,
        backoff_max,
    })
}
