//! Outputs of a command: the executor's report, parameter files, artifacts.
//!
//! Contract: KFP's `ExecutorOutput` and the files named in `ExecutorInput`. A value in the report
//! wins over the parameter's file. A missing artifact file is allowed: the artifact is registered
//! anyway, without a digest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use ferroflow_artifacts::{digest, stamp};
use ferroflow_types::ValueLimit;
use ferroflow_types::limit::{bytes_of, bytes_of_map};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::command::of_io;
use crate::{
    AttemptSpec, Failure, FailureReason, InputLink, OutputArtifact, OutputParameter, OutputSpec,
    Outputs, ParameterKind, ProducedArtifact,
};

/// What an executor writes (`ml_pipelines.ExecutorOutput`).
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Report {
    #[serde(alias = "parameterValues")]
    parameter_values: BTreeMap<String, Value>,
    artifacts: BTreeMap<String, ReportedList>,
    // Written by old SDKs beside parameterValues.
    #[serde(rename = "parameters")]
    _old_parameters: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReportedList {
    artifacts: Vec<Reported>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reported {
    name: String,
    uri: String,
    metadata: Map<String, Value>,
    #[serde(alias = "customPath")]
    custom_path: Option<String>,
}

/// Makes the folders that the command may expect.
pub(crate) fn prepare(spec: &AttemptSpec) -> Result<(), Failure> {
    let outputs = &spec.outputs;
    let files = outputs
        .parameters
        .iter()
        .map(|parameter| parameter.path.as_path());
    let artifacts = outputs
        .artifacts
        .iter()
        .map(|artifact| artifact.path.as_path());
    let parents = files
        .chain(artifacts)
        .chain([outputs.metadata_file.as_path()]);
    for path in parents {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .map_err(|error| of_io(&format!("cannot make {}", parent.display()), &error))?;
        }
    }
    Ok(())
}

/// Makes links to inputs, in a container whose paths are nobody else's.
pub(crate) fn link(links: &[InputLink]) -> Result<(), Failure> {
    for InputLink { path, target } in links {
        let parent = path.parent().unwrap_or(path);
        let made = fs::create_dir_all(parent).and_then(|()| symlink(target, path));
        match made {
            // Two inputs may be the same artifact.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(of_io(&format!("cannot make {}", path.display()), &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Everything that the command gave.
pub(crate) fn collect(spec: &OutputSpec) -> Result<Outputs, Failure> {
    let (report, reported) = read_report(&spec.metadata_file, spec.values)?;
    let mut outputs = Outputs::default();
    for parameter in &spec.parameters {
        let value = match report.parameter_values.get(&parameter.name) {
            Some(value) => Some(value.clone()),
            None => read_parameter(parameter, spec.values)?,
        };
        let size = value.as_ref().map_or(0, bytes_of);
        let fits = spec.values.check(size);
        fits.map_err(|problem| wrong(&parameter.name, &problem))?;
        match value {
            Some(value) if !value.is_null() => {
                outputs.parameters.insert(parameter.name.clone(), value);
            }
            // A Python component that returns None writes nothing for it.
            Some(_) => {}
            None if reported => {}
            None => return Err(wrong(&parameter.name, "the command wrote no value for it")),
        }
    }
    let mut reported = report.artifacts;
    for output in &spec.artifacts {
        let list = reported.remove(&output.name).unwrap_or_default().artifacts;
        for one in &list {
            let fits = spec.values.check(bytes_of_map(&one.metadata));
            fits.map_err(|problem| wrong(&output.name, &format!("its metadata: {problem}")))?;
        }
        outputs
            .artifacts
            .insert(output.name.clone(), artifacts(output, list)?);
    }
    Ok(outputs)
}

fn wrong(name: &str, problem: &str) -> Failure {
    Failure::new(FailureReason::Output, format!("output {name}: {problem}"))
}

fn read_text(path: &Path, check: impl Fn(u64) -> Result<(), String>) -> io::Result<Option<String>> {
    let bytes = match fs::metadata(path) {
        Ok(found) => {
            check(found.len()).map_err(io::Error::other)?;
            fs::read(path)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// The executor's report, and whether there is one.
fn read_report(path: &Path, values: ValueLimit) -> Result<(Report, bool), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("the executor's report {}: {error}", path.display());
        Failure::new(FailureReason::Output, message)
    };
    let check = |bytes| {
        let most = values.report();
        let problem = format!(
            "it is {bytes} bytes, and all values of a task together may have {most} (four times \
             value_max): write them as artifacts"
        );
        (bytes <= most).then_some(()).ok_or(problem)
    };
    let Some(text) = read_text(path, check).map_err(|error| failed(&error))? else {
        return Ok((Report::default(), false));
    };
    let report = serde_json::from_str(&text)
        // Python writes infinite numbers as bare words, for example in ROC curves.
        .or_else(|_| serde_json::from_str(&quote_bare_numbers(&text)))
        .map_err(|error| failed(&error))?;
    Ok((report, true))
}

/// Puts `NaN`, `Infinity` and `-Infinity` outside texts into quotes.
fn quote_bare_numbers(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let (mut rest, mut in_text) = (text, false);
    while let Some(first) = rest.chars().next() {
        if in_text && first == '\\' {
            let end = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
            result.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let word = ["NaN", "-Infinity", "Infinity"]
            .into_iter()
            .find(|word| !in_text && rest.starts_with(word));
        if let Some(word) = word {
            result.push('"');
            result.push_str(word);
            result.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        in_text ^= first == '"';
        result.push(first);
        rest = &rest[first.len_utf8()..];
    }
    result
}

fn read_parameter(
    parameter: &OutputParameter,
    values: ValueLimit,
) -> Result<Option<Value>, Failure> {
    let text = read_text(&parameter.path, |bytes| values.check(bytes))
        .map_err(|error| wrong(&parameter.name, &error.to_string()))?;
    let Some(text) = text else { return Ok(None) };
    typed(parameter.kind, &text)
        .map(Some)
        .map_err(|problem| wrong(&parameter.name, &problem))
}

/// The value that a parameter file stands for.
fn typed(kind: ParameterKind, text: &str) -> Result<Value, String> {
    let trimmed = text.trim();
    let not = |what: &str| format!("{trimmed:?} is not {what}");
    match kind {
        ParameterKind::String => Ok(Value::String(text.to_owned())),
        ParameterKind::Integer => trimmed
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| not("a whole number")),
        ParameterKind::Double => {
            let number: f64 = trimmed.parse().map_err(|_| not("a number"))?;
            serde_json::Number::from_f64(number)
                .map(Value::Number)
                .ok_or_else(|| not("a finite number"))
        }
        ParameterKind::Boolean => match trimmed {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(not("true or false")),
        },
        ParameterKind::List => match serde_json::from_str(trimmed) {
            Ok(value @ Value::Array(_)) => Ok(value),
            _ => Err(not("a JSON list")),
        },
        ParameterKind::Struct => match serde_json::from_str(trimmed) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(not("a JSON object")),
        },
    }
}

fn artifacts(
    output: &OutputArtifact,
    reported: Vec<Reported>,
) -> Result<Vec<ProducedArtifact>, Failure> {
    if output.list {
        return reported
            .into_iter()
            .map(|one| artifact(output, one))
            .collect();
    }
    let one = reported.into_iter().next().unwrap_or_default();
    Ok(vec![artifact(output, one)?])
}

fn artifact(output: &OutputArtifact, reported: Reported) -> Result<ProducedArtifact, Failure> {
    // Where artifacts are in a store, a path that an executor reports (as its SDK's `get_uri` gives
    // it) says where the content was written, not where it belongs.
    let remote = digest::local(&output.uri).is_none();
    let written = digest::local(&reported.uri).filter(|_| remote);
    let custom = reported.custom_path.or_else(|| {
        let path = written.as_ref()?;
        Some(path.display().to_string())
    });
    let uri = if reported.uri.is_empty() || written.is_some() {
        output.uri.clone()
    } else {
        reported.uri
    };
    let failed = |error: io::Error| of_io(&format!("output artifact {}", output.name), &error);
    // Several artifacts of one output lie below its place.
    let below = uri
        .strip_prefix(&output.uri)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| digest::below(&output.path, rest));
    let place = if uri == output.uri {
        Some(output.path.clone())
    } else {
        below.clone().or_else(|| digest::local(&uri))
    };
    let is_own = uri == output.uri || below.is_some();
    // The content belongs to the artifact's own place, wherever the command wrote it.
    if let (Some(custom), Some(place)) = (&custom, &place)
        && Path::new(custom) != place
    {
        digest::copy(Path::new(custom), place).map_err(failed)?;
    }
    // Before the digest: what changes in between then has another stamp than the one that is noted.
    let stamp = match &place {
        Some(place) if is_own && !remote => stamp::of_path(place).map_err(failed)?,
        _ => None,
    };
    let content = match &place {
        Some(place) => digest::of_path(place).map_err(failed)?,
        None => None,
    };
    Ok(ProducedArtifact {
        name: if reported.name.is_empty() {
            output.name.clone()
        } else {
            reported.name
        },
        uri,
        metadata: reported.metadata,
        digest: content.as_ref().map(|content| content.digest.clone()),
        stamp,
        size_bytes: content.map(|content| content.size_bytes),
        custom_path: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_files_are_typed() {
        use ParameterKind::{Boolean, Double, Integer, List, String, Struct};
        for (kind, text, expected) in [
            (String, " a\n", "\" a\\n\""),
            (Integer, " 7\n", "7"),
            (Double, "1.5", "1.5"),
            (Boolean, "True\n", "true"),
            (List, "[1]", "[1]"),
            (Struct, "{\"a\": 1}", "{\"a\":1}"),
        ] {
            assert_eq!(typed(kind, text).unwrap().to_string(), expected);
        }
        for (kind, text) in [
            (Integer, "1.5"),
            (Boolean, "yes"),
            (List, "{}"),
            (Struct, "[]"),
        ] {
            assert!(typed(kind, text).is_err(), "{kind:?} {text}");
        }
    }

    #[test]
    fn bare_infinities_become_texts_outside_texts_only() {
        let text = r#"{"a": [Infinity, -Infinity, NaN, 1], "b": "NaN \" Infinity"}"#;

        let quoted = quote_bare_numbers(text);

        assert_eq!(
            quoted,
            r#"{"a": ["Infinity", "-Infinity", "NaN", 1], "b": "NaN \" Infinity"}"#
        );
    }
}
