//! From the compiled pipeline to the plan: every reference resolved, every error reported.
//!
//! Nothing stops at the first error: whoever wrote the pipeline sees all of them, each with its
//! place.
//!
//! | file | holds |
//! |---|---|
//! | `component` | interfaces, commands, importers |
//! | `task` | one task: its inputs, its trigger, its loop |
//! | `graph` | edges, cycles, recursion, size |
//! | `used` | inputs of nested DAGs that nothing inside uses |

mod component;
mod graph;
mod task;
#[cfg(test)]
mod tests;
mod used;

use std::collections::BTreeMap;
use std::time::Duration;

use ferroflow_types::{Error, FieldViolation};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ir;
use crate::plan::{Body, Component, ComponentIx, Plan, WorkspaceDecl};

/// The only version of the IR that is understood.
pub(crate) const SCHEMA_VERSION: &str = "2.1.0";

/// Limits that no pipeline reaches by intention.
const TASKS_MAX: usize = 10_000;
const COMPONENTS_MAX: usize = 10_000;
const NAME_MAX: usize = 128;

/// Tasks of a whole run, loops counted once: a DAG that is used twice inside one that is used twice
/// is there four times.
const UNFOLDED_MAX: u64 = 100_000;

/// Errors with their places.
#[derive(Debug, Default)]
struct Faults(Vec<FieldViolation>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(FieldViolation::new(field, description));
    }
}

/// What is being built from.
struct Source<'s> {
    spec: &'s ir::PipelineSpec,
    platform: Option<&'s ir::SinglePlatform>,
    /// Where each component will be in the plan.
    component_ixs: BTreeMap<&'s str, ComponentIx>,
    /// What is used in DAGs.
    used: used::UsedInputs<'s>,
}

impl Plan {
    /// The plan of a compiled pipeline: its PipelineSpec and its platform document, in canonical
    /// JSON (lowerCamelCase names, enums by name, no unknown fields).
    ///
    /// # Errors
    /// `PIPELINE_INVALID` with everything that is wrong, each with its path in the document. Where
    /// a field has another type than its message says, with that alone.
    pub fn from_documents(pipeline: &Value, platform: Option<&Value>) -> Result<Self, Error> {
        let pipeline: ir::PipelineSpec = decode(pipeline)?;
        let platform: Option<ir::PlatformSpec> = platform.map(decode).transpose()?;
        build(&pipeline, platform.as_ref()).map_err(|faults| {
            Error::violations("PIPELINE_INVALID", "the pipeline spec is invalid", faults)
        })
    }
}

fn decode<T: DeserializeOwned>(document: &Value) -> Result<T, Error> {
    T::deserialize(document).map_err(|error| {
        Error::invalid(
            "PIPELINE_INVALID",
            format!("the pipeline spec is invalid: {error}"),
        )
    })
}

/// Builds the plan.
///
/// # Errors
/// Everything that is wrong, each with its path in the document.
pub(crate) fn build(
    spec: &ir::PipelineSpec,
    platform: Option<&ir::PlatformSpec>,
) -> Result<Plan, Vec<FieldViolation>> {
    let mut faults = Faults::default();
    check_header(spec, &mut faults);
    let Some(root) = &spec.root else {
        faults.add("root", "invalid v2 pipeline spec: root component is empty");
        return Err(faults.0);
    };
    let names: Vec<&str> = spec.components.keys().map(String::as_str).collect();
    // The root is component 0, the others follow in the order of `spec.components`.
    let component_ixs = names
        .iter()
        .zip(1u32..)
        .map(|(name, at)| (*name, ComponentIx(at)))
        .collect();
    let kubernetes = platform.and_then(|platform| platform.platforms.get("kubernetes"));
    let mut source = Source {
        spec,
        platform: kubernetes,
        component_ixs,
        used: used::UsedInputs::default(),
    };
    source.used = used::UsedInputs::of(&source);

    let mut components = vec![component::interface("root", "root", root, &mut faults)];
    for (name, component) in &spec.components {
        let field = format!("components.{name}");
        components.push(component::interface(name, &field, component, &mut faults));
    }
    let specs: Vec<_> = std::iter::once(("root".to_owned(), root))
        .chain(
            spec.components
                .iter()
                .map(|(name, spec)| (format!("components.{name}"), spec)),
        )
        .collect();
    // Before the bodies, which check that every input is given that is not optional.
    used::mark_unused_optional(&source, &mut components);
    let mut bodies = Vec::with_capacity(specs.len());
    for ((field, spec), own) in specs.iter().zip(&components) {
        bodies.push(component::body(
            &source,
            &components,
            own,
            field,
            spec,
            &mut faults,
        ));
    }
    for (component, body) in components.iter_mut().zip(bodies) {
        component.body = body;
    }
    graph::check_recursion(&components, &mut faults);
    if faults.0.is_empty() {
        // In a component that contains itself, counting would not end.
        graph::check_size(&components, &mut faults);
    }
    if faults.0.is_empty() {
        graph::inherit_retries(&mut components);
        Ok(plan(spec, kubernetes, components))
    } else {
        Err(faults.0)
    }
}

fn plan(
    spec: &ir::PipelineSpec,
    platform: Option<&ir::SinglePlatform>,
    components: Vec<Component>,
) -> Plan {
    let config = platform.map(|platform| &platform.pipeline_config);
    let timeout = config.and_then(|config| u64::try_from(config.active_deadline_seconds).ok());
    let default_root = &spec.default_pipeline_root;
    Plan {
        name: spec.pipeline_info.name.clone(),
        display_name: spec.pipeline_info.display_name.clone(),
        description: spec.pipeline_info.description.clone(),
        components,
        root: ComponentIx(0),
        default_pipeline_root: (!default_root.is_empty()).then(|| default_root.clone()),
        // 0 is an unset field in proto3.
        run_timeout: timeout
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
        workspace: config.and_then(|config| config.workspace.as_ref().map(workspace)),
    }
}

/// The folder that tasks share, in the words of Kubernetes.
fn workspace(declared: &Value) -> WorkspaceDecl {
    let patch = declared.pointer("/kubernetes/pvcSpecPatch");
    let member = |name: &str| patch.and_then(|patch| patch.get(name));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let modes = member("accessModes").and_then(Value::as_array);
    WorkspaceDecl {
        size: declared.get("size").and_then(text).unwrap_or_default(),
        access_modes: modes.into_iter().flatten().filter_map(text).collect(),
        storage_class: member("storageClassName").and_then(text),
    }
}

fn check_header(spec: &ir::PipelineSpec, faults: &mut Faults) {
    // Where upstream has a message for a fault, these are its words.
    let name = &spec.pipeline_info.name;
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() {
        faults.add(
            "pipelineInfo.name",
            "invalid v2 pipeline spec: name is empty",
        );
    } else if name.len() > NAME_MAX || name.starts_with('-') || !name.bytes().all(inside) {
        faults.add(
            "pipelineInfo.name",
            format!(
                "pipeline's name must contain only lowercase alphanumeric characters or '-', \
                 must start with an alphanumeric character and have at most {NAME_MAX} of them; \
                 it is {name:?}"
            ),
        );
    }
    if spec.schema_version != SCHEMA_VERSION {
        faults.add(
            "schemaVersion",
            format!(
                "KFP only supports schema version {SCHEMA_VERSION}, but the pipeline spec has \
                 version {}",
                spec.schema_version
            ),
        );
    }
    if spec.components.len() > COMPONENTS_MAX {
        faults.add(
            "components",
            format!("at most {COMPONENTS_MAX} components are allowed"),
        );
    }
}

impl Source<'_> {
    /// Where a component will be, if there is one of this name.
    fn component_ix(&self, name: &str) -> Option<ComponentIx> {
        self.component_ixs.get(name).copied()
    }
}

/// A component whose body is not known yet.
fn placeholder_body() -> Body {
    Body::Dag(crate::plan::Dag::default())
}
