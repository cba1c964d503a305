//! A data folder, the files by which steps say that they ran and are let go on, and what a platform
//! tells.

use std::path::{Path, PathBuf};

use ferroflow_testkit::scene::eventually;
use ferroflow_testkit::services::settings;
use ferroflow_testkit::{Platform, is_transition, transitions};
use serde_json::{Map, Value, json};

use super::LIMIT;

/// Opened when nobody serves.
pub(crate) const NO_SERVER: &str = "no-server";
/// Opened when the new version serves.
pub(crate) const SERVED: &str = "served";

pub(crate) struct Scene {
    data: tempfile::TempDir,
    settings: String,
    pipelines: String,
    events: String,
}

impl Scene {
    /// Databases by URL, empty for files in the data folder.
    pub(crate) fn open(pipelines: &str, events: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("effects")).unwrap();
        let written = json!({
            "pipelines": {"database": pipelines},
            "events": {"database": events},
        });
        let settings = settings(data.path(), &written);
        Self {
            data,
            settings,
            pipelines: pipelines.to_owned(),
            events: events.to_owned(),
        }
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(crate) fn pipelines(&self) -> &str {
        &self.pipelines
    }

    pub(crate) fn events(&self) -> &str {
        &self.events
    }

    /// Starts `program` on what is there, with room for as many commands as [`crate::runs`] holds up.
    pub(crate) fn platform(&self, program: &Path) -> Platform {
        let slots = super::runs::GATED_COMMANDS.to_string();
        let more = ["--config", &self.settings, "--parallel-tasks", &slots];
        Platform::start_program(program, self.data.path(), &more, &[])
    }

    fn effect(&self, name: &str) -> PathBuf {
        self.data.path().join("effects").join(name)
    }

    /// A command that says that it ran.
    pub(crate) fn record_command(&self, step: &str) -> String {
        format!("echo ran >> '{}'", self.effect(step).display())
    }

    /// A command that says that it ran, and goes on when the gate is open, or when the test is over
    /// and its folder gone.
    pub(crate) fn record_and_wait_command(&self, step: &str, gate: &str) -> String {
        let gate = self.effect(gate);
        format!(
            "{}; while [ -d {} ] && [ ! -e '{}' ]; do sleep 0.05; done",
            self.record_command(step),
            self.data.path().display(),
            gate.display()
        )
    }

    /// What a step left.
    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.effect(name)).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.effect(name).display().to_string()
    }

    pub(crate) fn times_run(&self, step: &str) -> usize {
        self.text(step).lines().count()
    }

    pub(crate) fn open_gate(&self, gate: &str) {
        std::fs::write(self.effect(gate), "").unwrap();
    }

    /// Lets the commands behind [`NO_SERVER`] end, and waits for their launchers' reports.
    pub(crate) fn end_commands_without_a_server(&self) {
        let rest = super::runs::GATED_COMMANDS - super::runs::ENDING_WITHOUT_SERVER;
        self.open_gate(NO_SERVER);
        eventually(LIMIT, "launchers report", || {
            self.unfinished_attempts().len() == rest
        });
    }

    /// The folders of attempts that were begun and have no report.
    pub(crate) fn unfinished_attempts(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.data.path().join("attempts")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            if folder.join("started").exists() {
                if !folder.join("outcome.json").exists() {
                    found.push(folder);
                }
                continue;
            }
            let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
            folders.extend(
                entries
                    .filter(|entry| entry.file_type().unwrap().is_dir())
                    .map(|entry| entry.path()),
            );
        }
        found
    }
}

pub(crate) fn wait_for_reports(attempts: &[PathBuf]) {
    eventually(LIMIT, "launchers report", || {
        attempts
            .iter()
            .all(|folder| folder.join("outcome.json").exists())
    });
}

/// Waits until somebody holds an attempt's lock, as its launcher does.
pub(crate) fn wait_for_lock(attempt: &Path) {
    eventually(LIMIT, "a launcher is at work", || {
        let mut flock = std::process::Command::new("flock");
        let lock = attempt.join("lock");
        let free = flock.arg("--nonblock").arg(lock).arg("true").status();
        !free.unwrap().success()
    });
}

/// Each run by its id, with tasks and events; and what runs are made from.
pub(crate) fn snapshot(platform: &Platform) -> Map<String, Value> {
    let get = |path: &str| {
        let (status, body) = platform.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    };
    let listed = get("/apis/v2beta1/runs?page_size=100");
    let mut all = Map::new();
    for run in listed["runs"].as_array().unwrap() {
        let id = run["run_id"].as_str().unwrap();
        let tasks = get(&format!("/apis/ferroflow/v1/runs/{id}/tasks"));
        let run = get(&format!("/apis/v2beta1/runs/{id}"));
        let events = platform.events(id);
        let state = json!({"run": run, "tasks": tasks, "events": events});
        all.insert(id.to_owned(), state);
    }
    let pipelines = get("/apis/v2beta1/pipelines");
    let first = pipelines["pipelines"][0]["pipeline_id"].as_str().unwrap();
    let versions = get(&format!("/apis/v2beta1/pipelines/{first}/versions"));
    let experiments = get("/apis/v2beta1/experiments?sort_by=created_at");
    let named = experiments["experiments"].as_array().unwrap().iter();
    let named = named.map(|one| {
        (
            one["experiment_id"].as_str().unwrap().to_owned(),
            one.clone(),
        )
    });
    let experiments: Map<String, Value> = named.collect();
    all.insert(
        "definitions".to_owned(),
        json!({"pipelines": pipelines, "versions": versions, "experiments": experiments}),
    );
    all
}

/// The run's log begins as it was, goes on without a gap, and has each transition once.
pub(crate) fn events_go_on(platform: &Platform, run: &str, before: &Value) {
    let before = before.as_array().unwrap();
    let mut after = Vec::new();
    // The relay tells of the run's end a moment after it is stored.
    eventually(LIMIT, "the run's end is told", || {
        after = platform.events(run);
        let last = after.last().and_then(|event| event["type"].as_str());
        matches!(
            last,
            Some(
                "ai.ferroflow.run.succeeded"
                    | "ai.ferroflow.run.failed"
                    | "ai.ferroflow.run.canceled"
            )
        )
    });
    assert_eq!(&after[..before.len()], before, "what was told stays");
    let numbers: Vec<_> = after.iter().map(number).collect();
    let expected: Vec<_> = (1..=after.len()).collect();
    assert_eq!(numbers, expected, "run {run}");
    let transition_counts = transitions(after.iter().filter(is_transition));
    let duplicates: Vec<_> = transition_counts
        .iter()
        .filter(|(_, count)| **count != 1)
        .collect();
    assert!(duplicates.is_empty(), "run {run}: {duplicates:#?}");
}

fn number(event: &Value) -> usize {
    match &event["sequence"] {
        Value::String(text) => text.parse().unwrap(),
        number => usize::try_from(number.as_u64().unwrap()).unwrap(),
    }
}

/// All that was told is told still; more may be.
pub(crate) fn assert_contains(after: &Value, before: &Value) {
    match (after, before) {
        (Value::Object(after), Value::Object(before)) => {
            for (name, value) in before {
                let kept = after.get(name);
                assert_contains(kept.unwrap_or_else(|| panic!("{name} is lost")), value);
            }
        }
        (Value::Array(after), Value::Array(before)) => {
            assert_eq!(after.len(), before.len());
            for (after, before) in after.iter().zip(before) {
                assert_contains(after, before);
            }
        }
        _ => assert_eq!(after, before),
    }
}
