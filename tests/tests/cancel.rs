//! What a cancelled run still starts: nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

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

    let (status, said) = platform.post(&format!("/apis/v2beta1/runs/{run}:terminate"), &json!({}));
    assert_eq!(status, 200, "{said}");
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
