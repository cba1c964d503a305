//! A further service works by its row alone: in one process with all, and as replicas of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ferroflow_testkit::Platform;
use ferroflow_testkit::cluster::database;
use ferroflow_testkit::services::{Process, free_port, identity, settings};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ferroflow-sixth");
const LIMIT: Duration = Duration::from_mins(1);

fn add(platform: &Platform, text: &str) -> String {
    let (status, note) = platform.post("/apis/ferroflow/v1/notes", &json!({"text": text}));
    assert_eq!(status, 200, "{note}");
    assert_eq!(note["text"], text);
    note["id"].as_str().unwrap().to_owned()
}

/// What was told of notes: each once, with the replica that handled it.
fn handled(platform: &Platform) -> Vec<(String, String)> {
    let path = "/apis/ferroflow/v1/events?follow=false&types=ai.ferroflow.note.handled";
    let lines = platform.text(path, "application/x-ndjson");
    let events = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let handled_notes = events.map(|one| {
        let event = &one["event"];
        assert_eq!(event["source"], "//ferroflow/notes-svc");
        assert_eq!(event["topic"], "ferroflow.notes.v1");
        let id = event["subject"].as_str().unwrap().rsplit('/').next();
        let by = event["data"]["by"].as_str().unwrap();
        (id.unwrap().to_owned(), by.to_owned())
    });
    handled_notes.collect()
}

/// Waits until each of these notes was handled, and nothing twice.
fn wait(platform: &Platform, notes: &BTreeSet<String>) -> BTreeSet<String> {
    let begun = Instant::now();
    loop {
        let handled_notes = handled(platform);
        let ids: BTreeSet<_> = handled_notes.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(ids.len(), handled_notes.len(), "a note was handled twice");
        if ids == *notes {
            return handled_notes.into_iter().map(|(_, by)| by).collect();
        }
        assert!(begun.elapsed() < LIMIT, "{} of {}", ids.len(), notes.len());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn it_works_in_one_process_with_all() {
    let folder = tempfile::tempdir().unwrap();
    let platform = Platform::start_program(Path::new(PROGRAM), folder.path(), &[], &[]);

    let notes: BTreeSet<_> = (0..20)
        .map(|n| add(&platform, &format!("note {n}")))
        .collect();

    assert_eq!(wait(&platform, &notes).len(), 1);
    // The others are there as well, and all describe themselves.
    assert_eq!(platform.get("/apis/v2beta1/runs").0, 200);
    let openapi = platform.get("/openapi.json").1;
    assert!(openapi["paths"]["/apis/ferroflow/v1/notes"]["post"].is_object());
}

#[test]
fn it_has_a_command_and_settings() {
    let help = Command::new(PROGRAM).args(["serve", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    assert!(
        help.contains("notes-svc") && help.contains("Notes, each handled once"),
        "{help}"
    );

    let wrong = Command::new(PROGRAM)
        .args(["serve", "notes-svc"])
        .env("FERROFLOW_NOTES__COLOUR", "red")
        .output();
    let stderr = String::from_utf8(wrong.unwrap().stderr).unwrap();
    assert!(
        stderr.contains("notes.colour") && stderr.contains("listen, database"),
        "{stderr}"
    );
}

#[test]
fn two_replicas_of_it_handle_each_note_once_also_when_one_is_killed() {
    if std::env::var_os("DATABASE_URL").is_none() {
        println!("skipped: DATABASE_URL is not set");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unique = std::process::id();
    let ports = [free_port(), free_port()];
    let upstream = ports
        .map(|port| format!("http://127.0.0.1:{port}"))
        .join(",");
    let common = json!({
        "notes": {"database": database(&format!("notes_{unique}"))},
        "events": {"database": database(&format!("notes_events_{unique}"))},
        "identity": identity(folder.path()),
        "gateway": {"listen": "127.0.0.1:0", "upstreams": {"notes-svc": upstream}},
    });
    let file = settings(folder.path(), &common);
    let mut replicas = ports.map(|port| {
        let mut own = common.clone();
        own["notes"]["listen"] = json!(format!("127.0.0.1:{port}"));
        let place = folder.path().join(format!("replica-{port}"));
        std::fs::create_dir_all(&place).unwrap();
        let file = settings(&place, &own);
        let arguments = ["notes-svc", "--config", &file];
        Process::start_program(Path::new(PROGRAM), &place, &arguments)
    });
    let place = folder.path().join("gateway");
    let arguments = ["gateway", "--config", &file];
    let gateway = Process::start_program(Path::new(PROGRAM), &place, &arguments);
    let platform = Platform::at(gateway.address());

    let mut notes: BTreeSet<_> = (0..50).map(|n| add(&platform, &format!("{n}"))).collect();
    let leader = wait(&platform, &notes);
    assert_eq!(leader.len(), 1);
    let at = replicas
        .iter()
        .position(|one| leader.contains(&one.replica()));
    replicas[at.unwrap()].kill();
    notes.extend((50..100).map(|n| add(&platform, &format!("{n}"))));

    assert_eq!(wait(&platform, &notes).len(), 2, "the other one went on");
}
