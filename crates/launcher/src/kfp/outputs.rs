//! Outputs of a component: the executor's report, parameter files, artifacts.
//!
//! Contract: KFP's `ExecutorOutput` and the files named in `ExecutorInput`. A value in the report
//! wins over the parameter's file.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;

use ferroflow_artifacts::digest;
use ferroflow_types::ValueLimit;
use ferroflow_types::json::check_nesting;
use ferroflow_types::json_place;
use ferroflow_types::limit::{bytes_of, bytes_of_map};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::values::{coerce, mark_bare_numbers, parse_value, without_number_marks};
use super::{OutputParameter, OutputSpec};
use crate::collect::{stamp_and_digest, unreadable};
use crate::files::open_output;
use crate::{Failure, FailureReason, InputArtifact, OutputArtifact, Outputs, ProducedArtifact};

/// What an executor writes (`ml_pipelines.ExecutorOutput`). As upstream, a field that is not known
/// fails the task.
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

/// Everything that the component gave, which had these inputs.
pub(crate) fn collect(spec: &OutputSpec, inputs: &[InputArtifact]) -> Result<Outputs, Failure> {
    let (report, reported) = read_report(&spec.metadata_file, spec.values)?;
    let mut outputs = Outputs::default();
    for parameter in &spec.parameters {
        // As upstream: a value in the report wins over the parameter's file.
        let value = match report.parameter_values.get(&parameter.name) {
            Some(value) => {
                let value = coerce(parameter.kind, value.clone());
                Some(value.map_err(|problem| output_failure(&parameter.name, &problem))?)
            }
            None => read_parameter(parameter, spec.values)?,
        };
        let size = value.as_ref().map_or(0, bytes_of);
        let fits = spec.values.check(size);
        fits.map_err(|problem| output_failure(&parameter.name, &problem))?;
        match value {
            Some(value) if !value.is_null() => {
                outputs.parameters.insert(parameter.name.clone(), value);
            }
            // A Python component that returns None writes nothing for it.
            Some(_) => {}
            None if reported => {}
            None => {
                return Err(output_failure(
                    &parameter.name,
                    "the command wrote no value for it",
                ));
            }
        }
    }
    let folder = spec.metadata_file.parent().unwrap_or(Path::new("/"));
    let mut reported = report.artifacts;
    for output in &spec.artifacts {
        let mut list = reported.remove(&output.name).unwrap_or_default().artifacts;
        for one in &mut list {
            if let Some(uri) = input_uri(inputs, &one.uri) {
                one.uri = uri;
            }
            let fits = spec.values.check(bytes_of_map(&one.metadata));
            fits.map_err(|problem| {
                output_failure(&output.name, &format!("its metadata: {problem}"))
            })?;
        }
        outputs
            .artifacts
            .insert(output.name.clone(), artifacts(output, list, folder)?);
    }
    Ok(outputs)
}

/// The URI of the input that is at a path, or above it. An executor that hands an input on knows only the path.
fn input_uri(inputs: &[InputArtifact], path: &str) -> Option<String> {
    inputs.iter().find_map(|input| {
        let rest = path.strip_prefix(input.path.to_str()?)?;
        let is_inside = rest.is_empty() || rest.starts_with('/');
        let uri = input.uri.trim_end_matches('/');
        is_inside.then(|| format!("{uri}{rest}"))
    })
}

fn output_failure(name: &str, problem: &str) -> Failure {
    Failure::new(FailureReason::Output, format!("output {name}: {problem}"))
}

/// The text of a file that the command left, if there is one, of at most `limit` bytes; `check` says
/// what is wrong with a longer one.
fn read_text(
    path: &Path,
    limit: u64,
    check: impl Fn(u64) -> Result<(), String>,
) -> io::Result<Option<String>> {
    let file = match open_output(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    check(file.metadata()?.len()).map_err(io::Error::other)?;
    // A link may lead to a file of the kernel's, which has a length of 0 and no end.
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    check(bytes.len() as u64).map_err(io::Error::other)?;
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
        let limit = values.report();
        let problem = format!(
            "it is {bytes} bytes, and all values of a task together may have {limit} (four times \
             value_max): write them as artifacts"
        );
        (bytes <= limit).then_some(()).ok_or(problem)
    };
    let Some(text) = read_text(path, values.report(), check).map_err(|error| failed(&error))?
    else {
        return Ok((Report::default(), false));
    };
    if let Ok(report) = serde_json::from_str(&text) {
        return Ok((report, true));
    }
    // Python writes infinite numbers as bare words, for example in ROC curves.
    let text = mark_bare_numbers(&text);
    match serde_json::from_str(&text) {
        Ok(report) => Ok((report, true)),
        Err(error) => Err(value_failure(&text, &error).unwrap_or_else(|| failed(&error))),
    }
}

/// What is wrong with one value of a report, by the output that it is of.
fn value_failure(text: &str, error: &serde_json::Error) -> Option<Failure> {
    let place = json_place::place(text.as_bytes(), error.line(), error.column());
    let (values, output) = place.split_once('.')?;
    if !matches!(values, "parameter_values" | "parameterValues" | "artifacts") {
        return None;
    }
    let problem = error.to_string();
    let problem = if problem.contains("surrogate") || problem.contains("hex escape") {
        format!("its text has half of a surrogate pair, which is no character ({problem})")
    } else {
        problem
    };
    Some(output_failure(output, &problem))
}

fn read_parameter(
    parameter: &OutputParameter,
    values: ValueLimit,
) -> Result<Option<Value>, Failure> {
    let text = read_text(&parameter.path, values.value(), |bytes| values.check(bytes));
    let text = text.map_err(|error| output_failure(&parameter.name, &error.to_string()))?;
    let Some(text) = text else { return Ok(None) };
    parse_value(parameter.kind, &text)
        .map(Some)
        .map_err(|problem| output_failure(&parameter.name, &problem))
}

fn artifacts(
    output: &OutputArtifact,
    reported: Vec<Reported>,
    folder: &Path,
) -> Result<Vec<ProducedArtifact>, Failure> {
    if output.list {
        return reported
            .into_iter()
            .map(|one| artifact(output, one, folder))
            .collect();
    }
    // As upstream: of an output that is no list, only the first artifact that is reported counts.
    let one = reported.into_iter().next().unwrap_or_default();
    Ok(vec![artifact(output, one, folder)?])
}

fn artifact(
    output: &OutputArtifact,
    reported: Reported,
    folder: &Path,
) -> Result<ProducedArtifact, Failure> {
    // A path below the folder for outputs, as the SDK's `get_uri` gives it, says where the content was
    // written, not where it belongs: the folder goes with the run. Where artifacts are in a store, so
    // does any path.
    let remote = digest::local_path(&output.uri).is_none();
    let written = digest::local_path(&reported.uri);
    let written = written.filter(|path| remote || path.starts_with(folder));
    let custom = reported.custom_path.or_else(|| {
        let path = written.as_ref()?;
        Some(path.display().to_string())
    });
    let uri = match &written {
        Some(path) if output.list => {
            let name = path.strip_prefix(folder).ok();
            let name = name.or(path.file_name().map(Path::new)).unwrap_or(path);
            format!("{}/{}", output.uri, name.display())
        }
        Some(_) => output.uri.clone(),
        None if reported.uri.is_empty() => output.uri.clone(),
        None => reported.uri,
    };
    let failed = |error: io::Error| unreadable(&output.name, &error);
    // Several artifacts of one output lie below its place.
    let below = uri
        .strip_prefix(&output.uri)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| digest::join_inside(&output.path, rest));
    let place = if uri == output.uri {
        Some(output.path.clone())
    } else {
        below.clone().or_else(|| digest::local_path(&uri))
    };
    let is_own = uri == output.uri || below.is_some();
    // The content belongs to the artifact's own place, wherever the command wrote it.
    if let (Some(custom), Some(place)) = (&custom, &place)
        && Path::new(custom) != place
    {
        digest::copy(Path::new(custom), place).map_err(failed)?;
    }
    let (stamp, content) = stamp_and_digest(&output.name, place.as_deref(), is_own && !remote)?;
    let metadata = without_number_marks(reported.metadata);
    for (key, value) in &metadata {
        check_nesting(value).map_err(|problem| {
            output_failure(&output.name, &format!("metadata {key:?}: {problem}"))
        })?;
    }
    Ok(ProducedArtifact {
        name: if reported.name.is_empty() {
            output.name.clone()
        } else {
            reported.name
        },
        uri,
        metadata,
        digest: content.as_ref().map(|content| content.digest.clone()),
        stamp,
        size_bytes: content.map(|content| content.size_bytes),
        custom_path: None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_value_that_cannot_be_read_is_reported_by_its_output() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("report.json");
        for half in ["\\ud800", "\\udc00", "\\ud800\\u0041"] {
            let report = format!("{{\"parameterValues\": {{\"a\": NaN, \"text\": \"{half}\"}}}}");
            std::fs::write(&path, report).unwrap();

            let failure = read_report(&path, ValueLimit::default()).unwrap_err();

            let message = failure.message;
            let wanted = "output text: its text has half of";
            assert!(message.starts_with(wanted), "{message}");
        }
    }

    #[test]
    fn what_is_written_beside_the_report_goes_to_the_place_of_the_artifact() {
        let root = tempfile::tempdir().unwrap();
        let (folder, place) = (root.path().join("outputs"), root.path().join("kept"));
        fs::create_dir(&folder).unwrap();
        let reported = |name: &str| {
            fs::write(folder.join(name), name).unwrap();
            Reported {
                uri: folder.join(name).display().to_string(),
                ..Reported::default()
            }
        };
        let output = |list| OutputArtifact {
            name: "model".to_owned(),
            list,
            uri: place.display().to_string(),
            path: place.clone(),
        };

        let list = vec![reported("a"), reported("b")];
        let found = artifacts(&output(true), list, &folder).unwrap();
        for (artifact, name) in found.iter().zip(["a", "b"]) {
            assert_eq!(artifact.uri, place.join(name).display().to_string());
            assert_eq!(fs::read_to_string(&artifact.uri).unwrap(), name);
            assert!(artifact.digest.is_some());
        }
        fs::remove_dir_all(&place).unwrap();
        let found = artifacts(&output(false), vec![reported("a")], &folder).unwrap();
        assert_eq!(found[0].uri, place.display().to_string());
        assert_eq!(fs::read_to_string(&place).unwrap(), "a");
    }

    #[test]
    fn an_artifact_that_cannot_be_read_is_a_wrong_output() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let output = OutputArtifact {
            name: "model".to_owned(),
            list: false,
            uri: path.display().to_string(),
            path,
        };

        let failure = artifact(&output, Reported::default(), root.path()).unwrap_err();

        assert_eq!(failure.reason, FailureReason::Output);
        assert!(
            failure.message.contains("output artifact model: "),
            "{failure:?}"
        );
    }

    #[test]
    fn what_is_no_file_is_named_and_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        symlink("/dev/zero", at("endless")).unwrap();
        symlink("/proc/self/status", at("kernel")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let least = ValueLimit::try_from(*ValueLimit::RANGE.start()).unwrap();
        let read = |name: &str, limit: u64| {
            let check = |bytes| (bytes <= limit).then_some(()).ok_or("too long".to_owned());
            let read = read_text(&at(name), limit, check);
            read.map_err(|error| error.to_string())
        };

        for name in ["pipe", "endless", "folder"] {
            let message = read(name, 10).unwrap_err();
            assert!(
                message.ends_with("is not a regular file"),
                "{name}: {message}"
            );
        }
        assert_eq!(read("kernel", 10).unwrap_err(), "too long");
        assert_eq!(read("none", 10), Ok(None));
        let parameter = OutputParameter {
            name: "sum".to_owned(),
            kind: super::super::ParameterKind::Integer,
            path: at("pipe"),
        };
        let failure = read_parameter(&parameter, least).unwrap_err();
        assert_eq!(failure.reason, FailureReason::Output);
        assert!(failure.message.starts_with("output sum: "), "{failure:?}");
        let failure = read_report(&at("pipe"), least).unwrap_err();
        assert_eq!(failure.reason, FailureReason::Output);
    }
}
