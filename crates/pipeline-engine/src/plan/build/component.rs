//! Components: what they take and give, and what executes them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Faults, NAME_MAX, Source, TASKS_MAX, graph, placeholder_body, task};
use crate::plan::{
    ArtifactInputDecl, ArtifactOutputDecl, ArtifactType, Body, Component, Container, Dag, Importer,
    ImporterUri, OutputSelector, ParameterInputDecl, ParameterType, ResourceSpec, TaskSpecIx,
};
use crate::task_config::{ConfigField, Passthroughs};
use crate::{ir, values};

/// What a component takes and gives; its body comes later.
pub(super) fn interface(
    name: &str,
    field: &str,
    spec: &ir::ComponentSpec,
    faults: &mut Faults,
) -> Component {
    let (inputs, outputs) = (&spec.input_definitions, &spec.output_definitions);
    let mut parameters = BTreeMap::new();
    for (name, definition) in &inputs.parameters {
        let field = format!("{field}.inputDefinitions.parameters.{name}");
        if let Some(decl) = input_parameter(&field, definition, faults) {
            parameters.insert(name.clone(), decl);
        }
    }
    let mut output_parameters = BTreeMap::new();
    for (name, definition) in &outputs.parameters {
        let field = format!("{field}.outputDefinitions.parameters.{name}");
        check_file_name(&field, name, faults);
        if let Some(kind) = parameter_type(&field, definition, faults) {
            output_parameters.insert(name.clone(), kind);
        }
    }
    let artifacts = inputs.artifacts.iter().map(|(name, definition)| {
        let decl = ArtifactInputDecl {
            kind: artifact_type(&definition.artifact_type),
            list: definition.is_artifact_list,
            optional: definition.is_optional,
        };
        (name.clone(), decl)
    });
    for name in outputs.artifacts.keys() {
        let field = format!("{field}.outputDefinitions.artifacts.{name}");
        check_file_name(&field, name, faults);
    }
    let output_artifacts = outputs.artifacts.iter().map(|(name, definition)| {
        let decl = ArtifactOutputDecl {
            kind: artifact_type(&definition.artifact_type),
            list: definition.is_artifact_list,
            metadata: definition.metadata.clone(),
        };
        (name.clone(), decl)
    });
    Component {
        name: name.to_owned(),
        parameters,
        artifacts: artifacts.collect(),
        output_parameters,
        output_artifacts: output_artifacts.collect(),
        passthroughs: passthroughs(field, &spec.task_config_passthroughs, faults),
        body: placeholder_body(),
    }
}

fn passthroughs(field: &str, spec: &[ir::Passthrough], faults: &mut Faults) -> Passthroughs {
    let mut passthroughs = Passthroughs::default();
    for (at, one) in spec.iter().enumerate() {
        match ConfigField::parse(&one.field) {
            Ok(Some(config_field)) => drop(passthroughs.0.insert(config_field, one.apply_to_task)),
            Ok(None) => {}
            Err(problem) => faults.add(
                format!("{field}.taskConfigPassthroughs[{at}].field"),
                problem,
            ),
        }
    }
    passthroughs
}

/// Names of tasks and outputs become parts of paths and URIs, and must not lead out of them.
fn check_file_name(field: &str, name: &str, faults: &mut Faults) {
    let leaves = name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if leaves || name.contains(['\0', '\\']) {
        let problem = format!(
            "{name:?} cannot be the name of a file: it must have no empty part, no . or .. as a part, \
             and no backslash"
        );
        faults.add(field, problem);
    }
}

fn input_parameter(
    field: &str,
    definition: &ir::ParameterDefinition,
    faults: &mut Faults,
) -> Option<ParameterInputDecl> {
    let kind = parameter_type(field, definition, faults)?;
    let default = match definition
        .default_value
        .clone()
        .filter(|value| !value.is_null())
    {
        None => None,
        Some(value) => match values::coerce(kind, value) {
            Ok(value) => Some(value),
            Err(problem) => {
                faults.add(format!("{field}.defaultValue"), problem);
                None
            }
        },
    };
    Some(ParameterInputDecl {
        kind,
        optional: definition.is_optional || default.is_some(),
        default,
        literals: definition
            .literals
            .iter()
            .cloned()
            .map(values::normalize)
            .collect(),
    })
}

fn parameter_type(
    field: &str,
    definition: &ir::ParameterDefinition,
    faults: &mut Faults,
) -> Option<ParameterType> {
    // Old compilers wrote the primitive `type` instead of `parameterType`.
    let kind = match (
        definition.parameter_type.as_str(),
        definition.r#type.as_str(),
    ) {
        ("NUMBER_DOUBLE", _) | ("", "DOUBLE") => ParameterType::Double,
        ("NUMBER_INTEGER", _) | ("", "INT") => ParameterType::Integer,
        ("STRING", _) | ("", "STRING") => ParameterType::String,
        ("BOOLEAN", _) => ParameterType::Boolean,
        ("LIST", _) => ParameterType::List,
        ("STRUCT", _) => ParameterType::Struct,
        ("TASK_FINAL_STATUS", _) => ParameterType::TaskFinalStatus,
        ("TASK_CONFIG", _) => ParameterType::TaskConfig,
        (other, _) => {
            faults.add(
                format!("{field}.parameterType"),
                format!("unknown type {other:?}"),
            );
            return None;
        }
    };
    Some(kind)
}

fn artifact_type(schema: &ir::ArtifactTypeSchema) -> ArtifactType {
    let title = [
        &schema.schema_title,
        &schema.instance_schema,
        &schema.schema_uri,
    ];
    let title = title.into_iter().flatten().find(|title| !title.is_empty());
    ArtifactType {
        schema_title: title
            .cloned()
            .unwrap_or_else(|| "system.Artifact".to_owned()),
        schema_version: match schema.schema_version.as_str() {
            "" => "0.0.1".to_owned(),
            version => version.to_owned(),
        },
    }
}

/// What a component does.
pub(super) fn body(
    source: &Source<'_>,
    components: &[Component],
    own: &Component,
    field: &str,
    spec: &ir::ComponentSpec,
    faults: &mut Faults,
) -> Body {
    match (&spec.dag, &spec.executor_label) {
        (Some(dag_spec), None) => Body::Dag(dag(source, components, own, field, dag_spec, faults)),
        (None, Some(label)) => executor(source, field, label, faults),
        (Some(_), Some(_)) => {
            faults.add(
                field,
                "a component has either a dag or an executorLabel, not both",
            );
            placeholder_body()
        }
        (None, None) => {
            faults.add(field, "a component needs a dag or an executorLabel");
            placeholder_body()
        }
    }
}

fn dag(
    source: &Source<'_>,
    components: &[Component],
    own: &Component,
    field: &str,
    spec: &ir::DagSpec,
    faults: &mut Faults,
) -> Dag {
    let field = format!("{field}.dag");
    if spec.tasks.len() > TASKS_MAX {
        faults.add(
            format!("{field}.tasks"),
            format!("at most {TASKS_MAX} tasks are allowed"),
        );
        return Dag::default();
    }
    let order: BTreeMap<&str, TaskSpecIx> = spec
        .tasks
        .keys()
        .map(String::as_str)
        .zip((0u32..).map(TaskSpecIx))
        .collect();
    let scope = task::Scope {
        source,
        components,
        own,
        spec,
        order: &order,
    };
    let mut tasks = Vec::with_capacity(spec.tasks.len());
    for (key, task_spec) in &spec.tasks {
        let field = format!("{field}.tasks.{key}");
        if key.is_empty() || key.len() > NAME_MAX {
            faults.add(&field, format!("a task's key has 1 to {NAME_MAX} bytes"));
        }
        check_file_name(&field, key, faults);
        tasks.push(task::task(&scope, key, &field, task_spec, faults));
    }
    // A task whose component is missing would be reported once more by everything that uses it.
    let complete = tasks.iter().all(Option::is_some);
    let mut dag = Dag {
        tasks: tasks.into_iter().flatten().collect(),
        ..Dag::default()
    };
    if complete {
        graph::link(&mut dag, &field, faults);
        outputs(&scope, &mut dag, &field, faults);
    }
    dag
}

fn outputs(scope: &task::Scope<'_>, dag: &mut Dag, field: &str, faults: &mut Faults) {
    for (name, output) in &scope.spec.outputs.parameters {
        let field = format!("{field}.outputs.parameters.{name}");
        let several = output
            .value_from_oneof
            .iter()
            .flat_map(|one| &one.parameter_selectors);
        let selectors = output.value_from_parameter.iter().chain(several);
        let mut found = Vec::new();
        for selector in selectors {
            let producer = scope.producer(&field, &selector.producer_subtask, faults);
            let Some((task, component)) = producer else {
                continue;
            };
            if !component
                .output_parameters
                .contains_key(&selector.output_parameter_key)
            {
                let key = &selector.output_parameter_key;
                faults.add(
                    format!("{field}.outputParameterKey"),
                    format!(
                        "task {} has no output parameter {key:?}",
                        selector.producer_subtask
                    ),
                );
            }
            found.push(OutputSelector {
                task,
                output: selector.output_parameter_key.clone(),
            });
        }
        dag.output_parameters.insert(name.clone(), found);
    }
    for (name, output) in &scope.spec.outputs.artifacts {
        let field = format!("{field}.outputs.artifacts.{name}");
        let mut found = Vec::new();
        for selector in &output.artifact_selectors {
            let producer = scope.producer(&field, &selector.producer_subtask, faults);
            let Some((task, component)) = producer else {
                continue;
            };
            if !component
                .output_artifacts
                .contains_key(&selector.output_artifact_key)
            {
                let key = &selector.output_artifact_key;
                faults.add(
                    format!("{field}.outputArtifactKey"),
                    format!(
                        "task {} has no output artifact {key:?}",
                        selector.producer_subtask
                    ),
                );
            }
            found.push(OutputSelector {
                task,
                output: selector.output_artifact_key.clone(),
            });
        }
        dag.output_artifacts.insert(name.clone(), found);
    }
}

fn executor(source: &Source<'_>, field: &str, label: &str, faults: &mut Faults) -> Body {
    let Some(executor) = source.spec.deployment_spec.executors.get(label) else {
        faults.add(
            format!("{field}.executorLabel"),
            format!("deploymentSpec.executors has no {label:?}"),
        );
        return placeholder_body();
    };
    let field = format!("deploymentSpec.executors.{label}");
    if let Some(container) = &executor.container {
        check_resources(&field, &container.resources, faults);
        return Body::Container(Box::new(self::container(source, label, container)));
    }
    if let Some(importer) = &executor.importer {
        return match self::importer(&field, importer, faults) {
            Some(importer) => Body::Importer(Box::new(importer)),
            None => placeholder_body(),
        };
    }
    let problem = if executor.resolver.is_some() {
        "resolver executors are not supported: use an importer"
    } else if executor.custom_job.is_some() {
        "customJob executors are Google Cloud's: use a container"
    } else {
        "an executor needs a container or an importer"
    };
    faults.add(field, problem);
    placeholder_body()
}

fn container(source: &Source<'_>, label: &str, spec: &ir::ContainerSpec) -> Container {
    let platform = source
        .platform
        .and_then(|platform| platform.deployment_spec.executors.get(label))
        .cloned()
        .unwrap_or_default();
    Container {
        executor: label.to_owned(),
        image: spec.image.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        env: spec
            .env
            .iter()
            .map(|env| (env.name.clone(), env.value.clone()))
            .collect(),
        resources: resources(&spec.resources),
        platform,
    }
}

fn check_resources(field: &str, spec: &ir::ResourcesSpec, faults: &mut Faults) {
    for (name, number) in [
        ("cpuLimit", spec.cpu_limit),
        ("memoryLimit", spec.memory_limit),
        ("cpuRequest", spec.cpu_request),
        ("memoryRequest", spec.memory_request),
    ] {
        if number < 0.0 {
            let field = format!("{field}.container.resources.{name}");
            faults.add(field, "it must not be negative");
        }
    }
}

/// The texts win over the numbers that old compilers wrote.
fn resources(spec: &ir::ResourcesSpec) -> ResourceSpec {
    let pick = |text: &str, number: f64, unit: &str| match (text.is_empty(), number > 0.0) {
        (false, _) => Some(text.to_owned()),
        (true, true) => Some(format!("{number}{unit}")),
        (true, false) => None,
    };
    ResourceSpec {
        cpu_limit: pick(&spec.resource_cpu_limit, spec.cpu_limit, ""),
        // The old numbers are gigabytes; upstream gives them to Kubernetes as `G`.
        memory_limit: pick(&spec.resource_memory_limit, spec.memory_limit, "G"),
        cpu_request: pick(&spec.resource_cpu_request, spec.cpu_request, ""),
        memory_request: pick(&spec.resource_memory_request, spec.memory_request, "G"),
        accelerator: spec.accelerator.as_ref().map(|accelerator| {
            let or = |text: &str, old: &str| if text.is_empty() { old } else { text }.to_owned();
            let old_count = values::to_text(&accelerator.count);
            (
                or(&accelerator.resource_type, &accelerator.r#type),
                or(&accelerator.resource_count, &old_count),
            )
        }),
    }
}

fn importer(field: &str, spec: &ir::ImporterSpec, faults: &mut Faults) -> Option<Importer> {
    let uri = match (
        &spec.artifact_uri.runtime_parameter,
        task::constant(&spec.artifact_uri),
    ) {
        (Some(name), _) => ImporterUri::Parameter(name.clone()),
        (None, Some(Value::String(uri))) => ImporterUri::Constant(uri),
        (None, _) => {
            let field = format!("{field}.importer.artifactUri");
            faults.add(
                field,
                "an importer needs a constant text or a runtimeParameter",
            );
            return None;
        }
    };
    Some(Importer {
        uri,
        kind: artifact_type(&spec.type_schema),
        metadata: spec.metadata.clone(),
        reimport: spec.reimport,
        download_to_workspace: spec.download_to_workspace,
    })
}
