//! What a run that is cancelled or deleted still starts and leaves running: nothing.

use std::time::{Duration, Instant};

use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn tasks_that_wait_for_a_slot_do_not_start_when_their_run_is_cancelled() {
    let data = tempfile::tempdir().unwrap();
    let effects = data.path().join("effects");
    std::fs::create_dir(&effects).unwrap();
    // One at a time, and the one that is stopped takes its time: others get its slot before the
    // run has ended.
    let tasks: Vec<_> = (0..4)
        .map(|at| {
            let file = effects.join(at.to_string());
            let file = file.display();
            let script = format!("trap 'sleep 0.3; exit 1' TERM; touch {file}; sleep 60 & wait");
            (format!("t{at}"), script, Vec::new())
        })
        .collect();
    let platform = Platform::start(data.path(), &["--parallel-tasks", "1"]);
    let run = platform.submit("cancel", &shell_pipeline("cancel", &tasks), &json!({}));
    let begun = || std::fs::read_dir(&effects).unwrap().count();
    let start = Instant::now();
    while begun() == 0 {
        assert!(start.elapsed() < LIMIT, "no task began");
        std::thread::sleep(Duration::from_millis(10));
    }

    let (status, body) = platform.post(&format!("/apis/v2beta1/runs/{run}:terminate"), &json!({}));
    assert_eq!(status, 200, "{body}");
    let ended = platform.wait(&run, LIMIT);

    assert_eq!(
        ended["error"]["message"], "the run was canceled",
        "{ended:#}"
    );
    // Another run gets the slot, so nobody holds it and nobody is before it.
    let last = vec![("last".to_owned(), "true".to_owned(), Vec::new())];
    let next = platform.submit("next", &shell_pipeline("next", &last), &json!({}));
    assert_eq!(platform.wait(&next, LIMIT)["state"], "SUCCEEDED");
    assert_eq!(begun(), 1, "a task of the cancelled run began after all");
}

#[test]
fn a_stopped_run_ends_its_processes_and_reads_as_failed_with_code_cancelled() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let mark = data.path().join("mark");
    let script = format!("(sleep 3; echo late > '{}') & sleep 60", mark.display());
    let spec = shell_pipeline("stops", &[("long".to_owned(), script, Vec::new())]);
    let run = platform.submit("stops", &spec, &json!({}));
    while platform.get(&format!("/apis/v2beta1/runs/{run}")).1["state"] != "RUNNING" {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));

    let (status, _) = platform.post(&format!("/apis/v2beta1/runs/{run}:terminate"), &json!({}));
    let ended = platform.wait(&run, Duration::from_secs(20));

    assert_eq!(status, 200);
    assert_eq!(
        (&ended["state"], &ended["error"]["code"]),
        (&json!("FAILED"), &json!(1))
    );
    let history: Vec<_> = ended["state_history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| h["state"].as_str().unwrap())
        .collect();
    assert_eq!(history, ["PENDING", "RUNNING", "CANCELING", "CANCELED"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!mark.exists(), "a grandchild of the stopped task went on");
    let (status, again) = platform.post(&format!("/apis/v2beta1/runs/{run}:terminate"), &json!({}));
    assert_eq!(status, 400, "{again}");
}

#[test]
fn a_run_that_is_deleted_while_it_runs_leaves_no_process() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let mark = data.path().join("mark");
    let script = format!("trap '' TERM; sleep 7; echo late > '{}'", mark.display());
    let spec = shell_pipeline("gone", &[("deaf".to_owned(), script, Vec::new())]);
    let run = platform.submit("gone", &spec, &json!({}));
    while platform.get(&format!("/apis/v2beta1/runs/{run}")).1["state"] != "RUNNING" {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));

    let (status, answer) =
        platform.request("DELETE", &format!("/apis/v2beta1/runs/{run}"), &[], "");

    assert_eq!(status, 200, "{answer}");
    assert_eq!(platform.get(&format!("/apis/v2beta1/runs/{run}")).0, 404);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!mark.exists(), "the command of a deleted run went on");
    assert!(
        !data.path().join("attempts").join(&run).exists(),
        "its folders are left"
    );
}
