//! The ecosystem's own compiled pipelines, each with the end that it must reach.
//!
//! Every row of class (a) is run and every row of class (e) is refused; the table is printed and
//! written to `target/conformance.md`. No row is known by its name here.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferroflow_testkit::{Platform, conformance_dir};
use serde_json::{Value, json};

/// Rows that run at once.
const WORKERS: usize = 4;

/// The longest row builds an environment and then prints for a minute.
const LIMIT: Duration = Duration::from_mins(7);

#[derive(Debug, Clone)]
struct Case {
    path: String,
    class: String,
    parameters: Value,
    expected: String,
}

struct Row {
    case: Case,
    got: String,
    took: Duration,
    note: String,
}

fn cases(folder: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join("cases.tsv")).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        Case {
            path: cells[0].to_owned(),
            class: cells[1].to_owned(),
            parameters: serde_json::from_str(cells[2]).unwrap(),
            expected: cells[3].to_owned(),
        }
    });
    rows.collect()
}

/// Files that a pipeline keeps its own marks in must not be left from an earlier run.
fn remove_marks(parameters: &Value) {
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

/// The end that a case reaches: REJECTED, or the state of its run; and why.
fn reach(platform: &Platform, folder: &Path, case: &Case, number: usize) -> (String, String) {
    remove_marks(&case.parameters);
    let file = folder.join(&case.path);
    let bytes = std::fs::read(&file).unwrap();
    let filename = file.file_name().unwrap().to_string_lossy().into_owned();
    let (status, uploaded) = platform.upload(&format!("case-{number}"), &filename, &bytes);
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
        "runtime_config": {"parameters": case.parameters},
    });
    let (status, made) = platform.post("/apis/v2beta1/runs", &run);
    if status != 200 {
        let end = if status < 500 { "REJECTED" } else { "ERROR" };
        return (
            end.to_owned(),
            made["message"].as_str().unwrap_or_default().to_owned(),
        );
    }
    let ended = platform.wait(made["run_id"].as_str().unwrap(), LIMIT);
    let why = ended["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (ended["state"].as_str().unwrap().to_owned(), why)
}

fn run_all(platform: &Platform, folder: &Path, cases: &[Case]) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { break };
                    let begun = Instant::now();
                    let (got, note) = reach(platform, folder, case, number);
                    let took = begun.elapsed();
                    rows.lock().unwrap().push((
                        number,
                        Row {
                            case: case.clone(),
                            got,
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

fn table(rows: &[Row]) -> String {
    let mut text =
        "| | class | pipeline | expected | got | s | why |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let sign = if row.got == row.case.expected {
            "✓"
        } else {
            "✗"
        };
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
            "| {sign} | {class} | {path} | {expected} | {got} | {took:.1} | {why} |"
        )
        .unwrap();
    }
    text
}

#[test]
fn compiled_pipelines_of_the_ecosystem_end_as_they_must() {
    let folder = match conformance_dir() {
        Ok(folder) => folder,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let wanted = |case: &Case| case.class == "a" || case.class == "e";
    let cases: Vec<_> = cases(&folder).into_iter().filter(wanted).collect();
    let data = tempfile::tempdir().unwrap();
    let more: &[&str] = &["--parallel-tasks", "8"];
    let platform = Platform::start(data.path(), more);

    let rows = run_all(&platform, &folder, &cases);

    let table = table(&rows);
    println!("{table}");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/conformance.md");
    std::fs::write(target, &table).unwrap();
    let count = |class: &str, good: bool| {
        let of_class = rows.iter().filter(|row| row.case.class == class);
        of_class
            .filter(|row| !good || row.got == row.case.expected)
            .count()
    };
    let (good, all) = (count("a", true), count("a", false));
    println!(
        "class a: {good} of {all} as expected; class e: {} of {}",
        count("e", true),
        count("e", false)
    );
    assert!(
        good * 10 >= all * 9,
        "{good} of {all} class a rows end as expected"
    );
    assert_eq!(
        count("e", true),
        count("e", false),
        "a row of class e was accepted"
    );
}
