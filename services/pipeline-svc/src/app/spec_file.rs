//! Compiled pipelines as they are uploaded or sent: bytes to checked documents.
//!
//! YAML or JSON, plain or inside a .zip or .tar.gz; one PipelineSpec and at most one platform
//! document. Everything that is wrong is told at once, with its place.

mod archive;
#[cfg(test)]
mod tests;

use ferroflow_proto::canonical::{UnknownFields, canonical};
use ferroflow_types::{Error, FieldViolation};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

/// The documents of a compiled pipeline, in canonical JSON.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpecFile {
    /// `ml_pipelines.PipelineSpec`
    pub pipeline: Value,
    /// `ml_pipelines.PlatformSpec`
    pub platform: Option<Value>,
}

/// The largest upload in bytes, as upstream, and the largest document inside one.
pub(crate) const SIZE_MAX: usize = 32 * 1024 * 1024;

/// What names of files may end with.
const TEXT_EXTENSIONS: [&str; 3] = [".yaml", ".yml", ".json"];

/// Files that are read at the same time.
static READ_PERMITS: Semaphore = Semaphore::const_new(2);

/// Reads a file beside the threads that serve requests: a large one takes seconds, in which nobody
/// else would be answered.
pub(crate) async fn read_blocking(
    read: impl FnOnce() -> Result<SpecFile, Error> + Send + 'static,
) -> Result<SpecFile, Error> {
    // It fails only for a semaphore that is closed, and nobody closes this one.
    let _permit = READ_PERMITS.acquire().await;
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| Error::internal("a specification cannot be read", error))?
}

/// Reads an uploaded file.
pub(crate) fn read(filename: &str, bytes: &[u8]) -> Result<SpecFile, Error> {
    if bytes.len() > SIZE_MAX {
        return Err(invalid(format!("the file is larger than {SIZE_MAX} bytes")));
    }
    // As upstream, the name decides first, and the first bytes only where it says nothing.
    if is_text(filename) {
        return parse(bytes);
    }
    match archive::detect_kind(bytes) {
        Some(kind) => parse(&archive::extract_pipeline(kind, bytes)?),
        None => Err(invalid(format!(
            "Failed to read pipeline from file {filename:?}: it must end with .yaml, .yml or .json, \
             or be a .zip or .tar.gz that holds such a file"
        ))),
    }
}

/// Reads a file that was fetched: what names in URLs end with says little.
pub(crate) fn read_fetched(bytes: &[u8]) -> Result<SpecFile, Error> {
    match archive::detect_kind(bytes) {
        Some(kind) => parse(&archive::extract_pipeline(kind, bytes)?),
        None => parse(bytes),
    }
}

/// What a run is created from: the PipelineSpec itself, or `{pipeline_spec, platform_spec}`.
pub(crate) fn from_json(value: Value) -> Result<SpecFile, Error> {
    let Value::Object(mut fields) = value else {
        return Err(invalid("pipeline_spec must be an object".to_owned()));
    };
    refuse_workflow(&fields)?;
    // The SDK writes the first spelling; JSON of protobuf allows the second one as well.
    let mut take = |names: [&str; 2]| names.iter().find_map(|name| fields.remove(*name));
    match take(["pipeline_spec", "pipelineSpec"]) {
        Some(pipeline) => {
            let platform = take(["platform_spec", "platformSpec"]);
            check(pipeline, platform.filter(|platform| !platform.is_null()))
        }
        None => check(Value::Object(fields), None),
    }
}

fn is_text(filename: &str) -> bool {
    let lower = filename.to_ascii_lowercase();
    TEXT_EXTENSIONS
        .iter()
        .any(|extension| lower.ends_with(extension))
}

fn invalid(message: String) -> Error {
    Error::invalid("PIPELINE_INVALID", message)
}

fn parse(bytes: &[u8]) -> Result<SpecFile, Error> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| invalid(format!("Failed to read a pipeline spec file: {error}")))?;
    let documents = ferroflow_yaml::documents(text)
        .map_err(|error| invalid(format!("failed to parse pipeline spec YAML: {error}")))?;
    let mut pipeline = None;
    let mut platform = None;
    for document in documents {
        // As upstream, an empty document between others is skipped. So are lists and single values.
        let Value::Object(fields) = &document else {
            continue;
        };
        refuse_workflow(fields)?;
        let place = match (is_pipeline(fields), is_platform(fields)) {
            (true, _) => &mut pipeline,
            (false, true) => &mut platform,
            // As upstream, other documents are ignored.
            (false, false) => continue,
        };
        if place.replace(document).is_some() {
            let what = if pipeline.is_some() && platform.is_none() {
                "pipeline"
            } else {
                "platform"
            };
            return Err(invalid(format!("multiple {what} specs provided")));
        }
    }
    let pipeline = pipeline.ok_or_else(|| invalid("no pipeline spec is provided".to_owned()))?;
    check(pipeline, platform)
}

/// What kfp 1 compiled, for Argo or Tekton.
fn refuse_workflow(fields: &Map<String, Value>) -> Result<(), Error> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let (engine, kind) = match text("apiVersion").split_once('/') {
        Some(("argoproj.io", _)) => ("an Argo", text("kind")),
        Some(("tekton.dev", _)) => ("a Tekton", text("kind")),
        _ => return Ok(()),
    };
    Err(invalid(format!(
        "this is {engine} {kind}, which kfp 1 compiles; a PipelineSpec is needed: compile with kfp 2"
    )))
}

fn is_pipeline(fields: &Map<String, Value>) -> bool {
    // One of these is enough: a specification that lacks others is refused with its faults, and not
    // ignored as a document of another kind.
    [
        "pipelineInfo",
        "pipeline_info",
        "root",
        "schemaVersion",
        "schema_version",
        "deploymentSpec",
    ]
    .iter()
    .any(|name| fields.contains_key(*name))
}

fn is_platform(fields: &Map<String, Value>) -> bool {
    fields
        .get("platforms")
        .is_some_and(|platforms| platforms.get("kubernetes").is_some())
}

fn check(pipeline: Value, platform: Option<Value>) -> Result<SpecFile, Error> {
    let mut faults: Vec<FieldViolation> = Vec::new();
    let mut keep = |result: Result<Value, Vec<FieldViolation>>| {
        result
            .map_err(|found| faults.extend(found))
            .unwrap_or_default()
    };
    let mut pipeline = keep(canonical(
        "ml_pipelines.PipelineSpec",
        &pipeline,
        "",
        UnknownFields::Refuse,
    ));
    if let Some(deployment) = pipeline.get("deploymentSpec") {
        let name = "ml_pipelines.PipelineDeploymentConfig";
        // As upstream, unknown fields are dropped here and not refused: compilers for other platforms
        // leave some, for example `@type`.
        let checked = keep(canonical(
            name,
            deployment,
            "deploymentSpec",
            UnknownFields::Discard,
        ));
        pipeline["deploymentSpec"] = checked;
    }
    let platform = platform.map(|platform| {
        let mut platform = keep(canonical(
            "ml_pipelines.PlatformSpec",
            &platform,
            "",
            UnknownFields::Refuse,
        ));
        let executors = platform.pointer_mut("/platforms/kubernetes/deploymentSpec/executors");
        if let Some(Value::Object(executors)) = executors {
            for (label, config) in executors {
                let place = format!("platforms.kubernetes.deploymentSpec.executors.{label}");
                let name = "kfp_kubernetes.KubernetesExecutorConfig";
                *config = keep(canonical(name, config, &place, UnknownFields::Refuse));
            }
        }
        platform
    });
    if faults.is_empty() {
        return Ok(SpecFile { pipeline, platform });
    }
    Err(Error::violations(
        "PIPELINE_INVALID",
        "the pipeline spec is invalid",
        faults,
    ))
}
