//! Compiled pipelines and parameters from files and flags.

use std::path::Path;

use anyhow::{Context as _, bail};
use ferroflow_proto::json::map_to_struct;
use prost_types::Struct;
use serde_json::{Map, Value, json};

/// The documents of a compiled pipeline, as CreateRun takes them.
pub(super) fn read(path: &Path) -> anyhow::Result<Value> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .with_context(|| format!("{} is not YAML or JSON", path.display()))?;
    let (platforms, pipelines): (Vec<_>, Vec<_>) = documents
        .into_iter()
        .filter(Value::is_object)
        .partition(|document| document.get("platforms").is_some());
    let mut pipelines = pipelines.into_iter();
    let Some(pipeline) = pipelines.next() else {
        bail!(
            "{} holds no pipeline: compile it with the kfp SDK",
            path.display()
        );
    };
    Ok(match platforms.into_iter().next() {
        None => pipeline,
        Some(platform) => json!({"pipeline_spec": pipeline, "platform_spec": platform}),
    })
}

/// A document as protobuf.
pub(super) fn fields(document: &Value) -> Struct {
    match document {
        Value::Object(fields) => map_to_struct(fields),
        _ => Struct::default(),
    }
}

/// Turns caching off in every task.
pub(super) fn without_cache(document: &mut Value) {
    match document {
        Value::Object(fields) => {
            if let Some(options) = fields.get_mut("cachingOptions") {
                *options = json!({});
            }
            fields.values_mut().for_each(without_cache);
        }
        Value::Array(items) => items.iter_mut().for_each(without_cache),
        _ => {}
    }
}

/// Parameters out of a file and `key=value` flags, typed as the pipeline declares them.
pub(super) fn parameters(
    document: &Value,
    file: Option<&Path>,
    flags: &[String],
) -> anyhow::Result<Map<String, Value>> {
    let mut parameters = match file {
        None => Map::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not a JSON object", path.display()))?
        }
    };
    let spec = document.get("pipeline_spec").unwrap_or(document);
    for flag in flags {
        let Some((name, text)) = flag.split_once('=') else {
            bail!("--param {flag}: write it as name=value");
        };
        let place = format!("/root/inputDefinitions/parameters/{name}/parameterType");
        let kind = spec
            .pointer(&place)
            .and_then(Value::as_str)
            .unwrap_or_default();
        parameters.insert(name.to_owned(), typed(name, kind, text)?);
    }
    Ok(parameters)
}

fn typed(name: &str, kind: &str, text: &str) -> anyhow::Result<Value> {
    if kind == "STRING" {
        return Ok(Value::String(text.to_owned()));
    }
    match serde_json::from_str(text) {
        Ok(value) => Ok(value),
        // The platform knows the type and says what is wrong with a text.
        Err(_) if kind.is_empty() => Ok(Value::String(text.to_owned())),
        Err(_) => bail!("--param {name}={text}: the pipeline expects a {kind}, written as JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_typed_as_the_pipeline_declares() {
        let document = json!({"root": {"inputDefinitions": {"parameters": {
            "s": {"parameterType": "STRING"},
            "n": {"parameterType": "NUMBER_INTEGER"},
            "l": {"parameterType": "LIST"}
        }}}});
        let flags = |flags: &[&str]| {
            let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            parameters(&document, None, &flags)
        };

        let given = flags(&["s=5", "n=5", "l=[1,\"a\"]", "other=x"]).unwrap();

        assert_eq!(
            json!(given),
            json!({"s": "5", "n": 5, "l": [1, "a"], "other": "x"})
        );
        assert!(
            flags(&["n=five"])
                .unwrap_err()
                .to_string()
                .contains("NUMBER_INTEGER")
        );
        assert!(flags(&["n"]).is_err());
    }
}
