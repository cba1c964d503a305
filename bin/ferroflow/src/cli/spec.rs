//! Pipelines and parameters from files and flags.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ferroflow_pipeline_svc::package;
use ferroflow_proto::json::map_to_struct;
use prost_types::Struct;
use serde_json::{Map, Value, json};

use super::python_file;

/// How Python files are compiled.
#[derive(Debug, clap::Args)]
pub(super) struct Compiler {
    /// The pipeline's function in a Python file that has several.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// The Python that has the kfp SDK, for Python files [default: that of the active virtual
    /// environment, else python3].
    #[arg(long, value_name = "PROGRAM", env = "FERROFLOW_CLIENT_PYTHON")]
    python: Option<PathBuf>,
}

/// A compiled pipeline.
pub(super) struct Compiled {
    /// What it is uploaded as.
    pub(super) filename: String,
    /// As it is uploaded.
    pub(super) bytes: Vec<u8>,
    /// Its documents, as CreateRun takes them.
    pub(super) document: Value,
}

impl Compiler {
    /// Reads a file, and compiles it if it is Python.
    pub(super) fn read(&self, file: &Path) -> anyhow::Result<Compiled> {
        let shown = file.display();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let (filename, bytes) = if python_file::is_python(file) {
            let (function, python) = (self.function.as_deref(), self.python.as_deref());
            let compiled = python_file::compile(file, function, python)?;
            (format!("{name}.yaml"), compiled)
        } else {
            if self.function.is_some() {
                bail!("--function is for Python files, and {shown} is none");
            }
            let bytes = std::fs::read(file).with_context(|| format!("cannot read {shown}"))?;
            (name.into_owned(), bytes)
        };
        // By the code of the service: what an upload would be refused for is told before anything
        // is sent.
        let (pipeline, platform) = package::read(&filename, &bytes).map_err(|error| {
            anyhow::anyhow!("{shown}: {}", error.to_string().replace("; ", "\n  "))
        })?;
        let document = match platform {
            None => pipeline,
            Some(platform) => json!({"pipeline_spec": pipeline, "platform_spec": platform}),
        };
        Ok(Compiled {
            filename,
            bytes,
            document,
        })
    }
}

/// The specification proper in a document.
fn spec(document: &Value) -> &Value {
    document.get("pipeline_spec").unwrap_or(document)
}

/// What the pipeline calls itself.
pub(super) fn name(document: &Value) -> String {
    let name = spec(document).pointer("/pipelineInfo/name");
    name.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What the pipeline says of itself.
pub(super) fn description(document: &Value) -> String {
    let text = spec(document).pointer("/pipelineInfo/description");
    text.and_then(Value::as_str).unwrap_or_default().to_owned()
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
                // A message of proto3 whose `enableCache` is not given has it off.
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
    for flag in flags {
        let Some((name, text)) = flag.split_once('=') else {
            bail!("--param {flag}: write it as name=value");
        };
        let place = format!("/root/inputDefinitions/parameters/{name}/parameterType");
        let kind = spec(document)
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
