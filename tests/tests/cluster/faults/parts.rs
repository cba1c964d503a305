//! Parts of the test bed that are killed and come back, at once or after a while. They are
//! everybody's, so the tests of this file run one after the other.

use std::time::Duration;

use ferroflow_testkit::Platform;
use ferroflow_testkit::parts::{KilledPart, restart};
use ferroflow_testkit::scene::Scene;
use serde_json::json;

use super::STEPS;

/// Kills and restarts one of the test bed's processes while a step runs.
fn restarted_while_a_step_runs(process: &str) {
    let Some(scene) = Scene::open(&process.replace('-', "")) else {
        return;
    };
    let platform = scene.platform();
    let run = scene.submit(&platform, &STEPS, 4);
    scene.wait_for_step("t0", 1);

    if let Err(reason) = restart(process) {
        return println!("skipped: {reason}");
    }

    scene.assert_succeeds_with_steps_run_once(&platform, &run, &STEPS);
}

#[test]
fn restarted_parts_cost_nothing() {
    for process in ["kube-apiserver", "kubelet", "minio", "postgres"] {
        println!("restarting {process}");
        restarted_while_a_step_runs(process);
    }
}

/// What a request for a new run is told: the run's id, or why not.
fn ask_for_a_run(platform: &Platform, name: &str) -> Result<String, (u16, String)> {
    let spec = ferroflow_testkit::shell_pipeline(
        name,
        &[("one".to_owned(), "true".to_owned(), Vec::new())],
    );
    let run = json!({"display_name": name, "pipeline_spec": spec});
    let (status, body) = platform.post("/apis/v2beta1/runs", &run);
    match status {
        200 => Ok(body["run_id"].as_str().unwrap().to_owned()),
        _ => Err((
            status,
            body["message"].as_str().unwrap_or_default().to_owned(),
        )),
    }
}

#[test]
fn an_api_server_that_is_away_for_half_a_minute_costs_nothing() {
    let Some(scene) = Scene::open("noapi") else {
        return;
    };
    let platform = scene.platform();
    let run = scene.submit(&platform, &STEPS, 4);
    scene.wait_for_step("t0", 1);

    match KilledPart::kill("kube-apiserver") {
        Ok(_away) => std::thread::sleep(Duration::from_secs(30)),
        Err(reason) => return println!("skipped: {reason}"),
    }
    // What is asked for meanwhile waits, and what ran is found.
    scene.assert_succeeds_with_steps_run_once(&platform, &run, &STEPS);
}

#[test]
fn a_database_that_is_away_is_told_and_loses_nothing_that_was_accepted() {
    if std::env::var_os("DATABASE_URL").is_none() {
        return println!("skipped: DATABASE_URL is not set (cargo xtask test --cluster sets it)");
    }
    let Some(scene) = Scene::open("nodb") else {
        return;
    };
    let platform = scene.platform();
    let run = scene.submit(&platform, &STEPS, 4);
    scene.wait_for_step("t0", 1);
    let mut accepted = Vec::new();

    let away = match KilledPart::kill("postgres") {
        Ok(away) => away,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let begun = std::time::Instant::now();
    let mut refused = 0;
    while begun.elapsed() < Duration::from_secs(20) {
        match ask_for_a_run(&platform, &format!("meanwhile-{refused}")) {
            Ok(run) => accepted.push(run),
            Err((status, message)) => {
                assert_eq!(status, 503, "{message}");
                assert!(
                    message.contains("database"),
                    "it says what is away: {message}"
                );
                refused += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(refused > 0, "somebody was told");
    let (status, health) = platform.get("/healthz");
    println!("refused {refused}, health meanwhile {status}: {health}");
    drop(away);

    scene.assert_succeeds_with_steps_run_once(&platform, &run, &STEPS);
    for run in accepted {
        let ended = platform.wait(&run, ferroflow_testkit::scene::LIMIT);
        assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
    }
    ask_for_a_run(&platform, "afterwards").unwrap();
}
