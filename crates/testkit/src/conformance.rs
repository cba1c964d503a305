//! The ecosystem's own compiled pipelines: running a table of them, and printing what came of it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Platform;
use crate::cluster::with_shared_volume;
use serde_json::{Value, json};

/// The longest row builds an environment and then prints for a minute.
const LIMIT: Duration = Duration::from_mins(7);

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file, below the table's folder.
    pub path: String,
    /// What it needs: `a` local processes, `b` containers, `c` Kubernetes, `e` is to be refused.
    pub class: String,
    /// The run's parameters.
    pub parameters: Value,
    /// REJECTED, or the state that its run must end in.
    pub expected: String,
    /// What is changed so that it can run here; the row says so.
    pub adapted: Option<Adapted>,
}

/// A change of a row that needs what a test's cluster does not have, beside its parameters.
#[derive(Debug, Clone, Default)]
pub struct Adapted {
    /// What is changed and why.
    pub remark: String,
    /// The run's root.
    pub root: String,
    /// A claim that every step mounts at `/shared`.
    pub claim: Option<String>,
    /// The version of the SDK in steps, in place of the one that compiled the pipeline.
    pub sdk: Option<String>,
}

/// What came of a row.
pub struct Row {
    /// The row.
    pub case: Case,
    /// How it ended.
    pub got: String,
    /// What else there is to say.
    pub remarks: Vec<String>,
    took: Duration,
    note: String,
}

impl Row {
    /// Whether it ended as it must.
    pub fn is_good(&self) -> bool {
        self.got == self.case.expected
    }
}

/// All rows of the table in `folder`.
pub fn cases(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("cases.tsv")).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        Case {
            path: cells[0].to_owned(),
            class: cells[1].to_owned(),
            parameters: serde_json::from_str(cells[2]).unwrap(),
            expected: cells[3].to_owned(),
            adapted: None,
        }
    });
    rows.collect()
}

/// Files that a pipeline keeps its own marks in must not be left from an earlier run.
fn remove_marker_files(parameters: &Value) {
    for value in parameters
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.values())
    {
        if let Some(path) = value.as_str().filter(|path| path.starts_with("/tmp/")) {
            let _absent = std::fs::remove_file(path).is_err();
        }
    }
}

/// A compiled pipeline whose steps install another version of the SDK.
fn with_sdk(text: &str, version: &str) -> String {
    let mut parts = text.split("'kfp==");
    let mut changed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once('\'').map_or(part, |(_, rest)| rest);
        write!(changed, "'kfp=={version}'{rest}").unwrap();
    }
    changed
}

/// The end that a case reaches: REJECTED, or the state of its run; and why.
fn run_case(platform: &Platform, folder: &Path, case: &Case, number: usize) -> (String, String) {
    remove_marker_files(&case.parameters);
    let file = folder.join(&case.path);
    let mut text = std::fs::read_to_string(&file).unwrap();
    let filename = file.file_name().unwrap().to_string_lossy().into_owned();
    let adapted = case.adapted.clone().unwrap_or_default();
    if let Some(claim) = &adapted.claim {
        let mut documents = ferroflow_yaml::documents(&text).unwrap();
        let documents = with_shared_volume(documents.remove(0), claim);
        let (pipeline, platform) = (&documents["pipeline_spec"], &documents["platform_spec"]);
        // JSON is YAML.
        text = format!("{pipeline}\n---\n{platform}\n");
    }
    if let Some(version) = &adapted.sdk {
        text = with_sdk(&text, version);
    }
    let (status, uploaded) = platform.upload(&format!("case-{number}"), &filename, text.as_bytes());
    if status != 200 {
        let why = uploaded["error_message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let end = if status < 500 { "REJECTED" } else { "ERROR" };
        return (end.to_owned(), why);
    }
    let run = json!({
        "display_name": case.path,
        "pipeline_version_reference": {"pipeline_id": uploaded["pipeline_id"]},
        "runtime_config": {"parameters": case.parameters, "pipeline_root": adapted.root},
    });
    let (status, made) = platform.post("/apis/v2beta1/runs", &run);
    if status != 200 {
        let end = if status < 500 { "REJECTED" } else { "ERROR" };
        return (
            end.to_owned(),
            made["message"].as_str().unwrap_or_default().to_owned(),
        );
    }
    let run = made["run_id"].as_str().unwrap();
    let Some(ended) = platform.wait_until(run, LIMIT) else {
        let why = format!("run {run} has not ended after {LIMIT:?}");
        return ("UNFINISHED".to_owned(), why);
    };
    let why = ended["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (ended["state"].as_str().unwrap().to_owned(), why)
}

/// Runs rows, so many at once.
pub fn run_all(platform: &Platform, folder: &Path, cases: &[Case], workers: usize) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { break };
                    let begun = Instant::now();
                    let (got, note) = run_case(platform, folder, case, number);
                    let took = begun.elapsed();
                    rows.lock().unwrap().push((
                        number,
                        Row {
                            case: case.clone(),
                            got,
                            remarks: case.adapted.iter().map(|is| is.remark.clone()).collect(),
                            took,
                            note,
                        },
                    ));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|(number, _)| *number);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// The rows as Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        "| | class | pipeline | expected | got | s | why | remarks |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let sign = if row.is_good() { "✓" } else { "✗" };
        let remarks = row.remarks.join("; ");
        let why = row
            .note
            .lines()
            .next()
            .unwrap_or_default()
            .replace('|', "/");
        let why: String = why.chars().take(120).collect();
        let Case {
            path,
            class,
            expected,
            ..
        } = &row.case;
        let (got, took) = (&row.got, row.took.as_secs_f64());
        writeln!(
            text,
            "| {sign} | {class} | {path} | {expected} | {got} | {took:.1} | {why} | {remarks} |"
        )
        .unwrap();
    }
    text
}

/// How many rows of a class there are, and how many of them ended as they must.
pub fn count(rows: &[Row], class: &str) -> (usize, usize) {
    let of_class = || rows.iter().filter(|row| row.case.class == class);
    let good = of_class().filter(|row| row.is_good());
    (good.count(), of_class().count())
}
