//! `ml_pipelines.ExecutorInput`: what an executor is told, as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// An artifact as an executor sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExecutorArtifact {
    /// The id of a stored one; its text is the name that executors see.
    pub id: Option<i64>,
    /// The output's name.
    pub name: String,
    /// For example `system.Model`.
    pub schema_title: String,
    /// For example `0.0.1`.
    pub schema_version: String,
    /// Where it is.
    pub uri: String,
    /// What is known of it.
    pub metadata: Map<String, Value>,
    /// A path that replaces the one derived from the URI.
    pub custom_path: Option<String>,
}

/// Everything that an executor is told.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ExecutorInput {
    /// Input parameters, defaults filled in.
    pub parameters: BTreeMap<String, Value>,
    /// Input artifacts.
    pub input_artifacts: BTreeMap<String, Vec<ExecutorArtifact>>,
    /// Output parameters and their files.
    pub output_parameters: BTreeMap<String, String>,
    /// Output artifacts.
    pub output_artifacts: BTreeMap<String, ExecutorArtifact>,
    /// Where the executor reports.
    pub output_file: String,
}

impl ExecutorInput {
    /// The proto3 JSON of it; empty members are left out as protobuf does.
    pub(crate) fn to_json(&self) -> Value {
        let mut inputs = Map::new();
        if !self.parameters.is_empty() {
            inputs.insert("parameterValues".to_owned(), json!(self.parameters));
        }
        if !self.input_artifacts.is_empty() {
            let lists = self.input_artifacts.iter().map(|(name, list)| {
                let list: Vec<_> = list.iter().map(artifact_json).collect();
                (name.clone(), json!({"artifacts": list}))
            });
            inputs.insert("artifacts".to_owned(), Value::Object(lists.collect()));
        }
        let mut outputs = Map::new();
        if !self.output_parameters.is_empty() {
            let files = self.output_parameters.iter();
            let files = files.map(|(name, file)| (name.clone(), json!({"outputFile": file})));
            outputs.insert("parameters".to_owned(), Value::Object(files.collect()));
        }
        if !self.output_artifacts.is_empty() {
            let lists = self.output_artifacts.iter().map(|(name, artifact)| {
                (
                    name.clone(),
                    json!({"artifacts": [artifact_json(artifact)]}),
                )
            });
            outputs.insert("artifacts".to_owned(), Value::Object(lists.collect()));
        }
        outputs.insert(
            "outputFile".to_owned(),
            Value::String(self.output_file.clone()),
        );
        json!({"inputs": inputs, "outputs": outputs})
    }
}

fn artifact_json(artifact: &ExecutorArtifact) -> Value {
    let name = artifact
        .id
        .map_or_else(|| artifact.name.clone(), |id| id.to_string());
    let mut fields = Map::new();
    fields.insert("name".to_owned(), Value::String(name));
    fields.insert(
        "type".to_owned(),
        json!({"schemaTitle": artifact.schema_title, "schemaVersion": artifact.schema_version}),
    );
    fields.insert("uri".to_owned(), Value::String(artifact.uri.clone()));
    fields.insert(
        "metadata".to_owned(),
        Value::Object(artifact.metadata.clone()),
    );
    if let Some(path) = &artifact.custom_path {
        fields.insert("customPath".to_owned(), Value::String(path.clone()));
    }
    Value::Object(fields)
}

/// The document as the SDK's executor takes it. It makes `artifact.path` of the URI and reads no
/// `customPath` of an input: of content of this machine that is at another path, the URI says that path.
/// The launcher turns it back in what the executor reports.
pub(crate) fn for_executor(input: &Value) -> Cow<'_, Value> {
    let is_elsewhere = |artifact: &Value| {
        let uri = artifact["uri"].as_str().unwrap_or_default();
        is_local(uri) && artifact.get("customPath").is_some()
    };
    let lists = input.pointer("/inputs/artifacts");
    let lists = lists.and_then(Value::as_object).into_iter().flatten();
    let mut artifacts = lists
        .filter_map(|(_, list)| list["artifacts"].as_array())
        .flatten();
    // Parameters may be many MiB, and hardly any input is at another path.
    if !artifacts.any(is_elsewhere) {
        return Cow::Borrowed(input);
    }
    let mut changed = input.clone();
    let lists = changed.pointer_mut("/inputs/artifacts");
    let lists = lists.and_then(Value::as_object_mut).into_iter().flatten();
    let lists = lists.filter_map(|(_, list)| list.get_mut("artifacts")?.as_array_mut());
    for artifact in lists.flatten().filter(|artifact| is_elsewhere(artifact)) {
        artifact["uri"] = artifact["customPath"].clone();
    }
    Cow::Owned(changed)
}

/// The path of an artifact in JSON form.
pub(crate) fn artifact_path(artifact: &Value) -> String {
    match artifact.get("customPath").and_then(Value::as_str) {
        Some(path) => path.to_owned(),
        None => local_path(
            artifact
                .get("uri")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        ),
    }
}

/// Whether a URI is of a file or folder of this machine.
pub(crate) fn is_local(uri: &str) -> bool {
    uri.starts_with('/') || uri.starts_with("file://")
}

/// The path that stands for a URI inside a task. Paths and `file://` URIs are themselves.
pub(crate) fn local_path(uri: &str) -> String {
    if let Some(path) = uri.strip_prefix("file://") {
        return path.to_owned();
    }
    // The SDK's `artifact.path` maps these schemes to the same folders and leaves other URIs as they
    // are.
    for (scheme, folder) in [
        ("gs://", "/gcs/"),
        ("s3://", "/s3/"),
        ("minio://", "/minio/"),
    ] {
        if let Some(rest) = uri.strip_prefix(scheme) {
            return format!("{folder}{rest}");
        }
    }
    match uri.strip_prefix("oci://") {
        Some(image) => format!("/oci/{}/models", image.replace('/', "_")),
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_uris() {
        for (uri, path) in [
            ("gs://b/x", "/gcs/b/x"),
            ("s3://b/x", "/s3/b/x"),
            ("minio://b/x", "/minio/b/x"),
            ("oci://reg/m:1", "/oci/reg_m:1/models"),
            ("file:///a/b", "/a/b"),
            ("/a/b", "/a/b"),
        ] {
            assert_eq!(local_path(uri), path);
        }
    }

    #[test]
    fn an_executor_finds_inputs_by_their_uri() {
        let artifact = |uri: &str, path: Option<&str>| {
            let mut artifact = json!({"uri": uri});
            if let Some(path) = path {
                artifact["customPath"] = json!(path);
            }
            artifact
        };
        let uri_for = |artifact: Value| {
            let input = json!({"inputs": {"artifacts": {"a": {"artifacts": [artifact]}}}});
            for_executor(&input)["inputs"]["artifacts"]["a"]["artifacts"][0]["uri"].clone()
        };

        assert_eq!(uri_for(artifact("/a/b", None)), "/a/b");
        assert_eq!(
            uri_for(artifact("/a/b", Some("/copies/1/b"))),
            "/copies/1/b"
        );
        assert_eq!(uri_for(artifact("file:///a/b", Some("/a/b"))), "/a/b");
        // The SDK has a path of its own for these.
        assert_eq!(
            uri_for(artifact("gs://a/b", Some("/workspace/b"))),
            "gs://a/b"
        );
    }

    #[test]
    fn the_json_is_as_executors_expect() {
        let model = ExecutorArtifact {
            id: None,
            name: "model".to_owned(),
            schema_title: "system.Model".to_owned(),
            schema_version: "0.0.1".to_owned(),
            uri: "/r/model".to_owned(),
            metadata: Map::new(),
            custom_path: None,
        };
        let dataset = ExecutorArtifact {
            id: Some(17),
            ..model.clone()
        };
        let input = ExecutorInput {
            parameters: BTreeMap::from([("n".to_owned(), json!(3))]),
            input_artifacts: BTreeMap::from([("ds".to_owned(), vec![dataset])]),
            output_parameters: BTreeMap::from([("Output".to_owned(), "/o/Output".to_owned())]),
            output_artifacts: BTreeMap::from([("model".to_owned(), model)]),
            output_file: "/o/output_metadata.json".to_owned(),
        };

        insta::assert_json_snapshot!(input.to_json());
    }
}
