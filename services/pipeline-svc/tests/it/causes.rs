//! What a user is told of a task that failed: what it printed, and the cause of a Python task in an
//! exit handler, outside and inside a loop; over processes, and over Docker and Kubernetes where they
//! are given.

use std::time::Duration;

use ferroflow_testkit::cluster::Cluster;
use ferroflow_testkit::docker::Engine;
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(2);

const CAUSE: &str = "AssertionError: only 4 words, wanted 9";

/// Fails for 9: `count` counts words.
const SCRIPT: &str = "
def count(wanted):
    words = 'to be or not'.split()
    assert len(words) == wanted, f'only {len(words)} words, wanted {wanted}'

import sys
print('counting', flush=True)
count(int(sys.argv[1]))
";

/// `work` in an exit handler, once by itself and once for each of two items of a loop; the exit tasks
/// are told how it ended.
fn pipeline() -> Value {
    let wanted = json!({"parameters": {"wanted": {"parameterType": "STRING"}}});
    let hand_on = json!({"parameters": {"wanted": {"componentInputParameter": "wanted"}}});
    let handler = json!({"dag": {"tasks": {
        "exit-handler-1": {
            "componentRef": {"name": "handler"}, "inputs": hand_on,
            "taskInfo": {"name": "exit-handler-1"}
        },
        "tell": {
            "componentRef": {"name": "tell"}, "dependentTasks": ["exit-handler-1"],
            "taskInfo": {"name": "tell"},
            "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
            "inputs": {"parameters": {"status": {"taskFinalStatus":
                {"producerTask": "exit-handler-1"}}}}
        }
    }}, "inputDefinitions": wanted});
    let work = json!({"dag": {"tasks": {"work": {
        "componentRef": {"name": "work"}, "inputs": hand_on, "taskInfo": {"name": "work"}
    }}}, "inputDefinitions": wanted});
    let container =
        |command: &[&str]| json!({"container": {"image": "python:3.11", "command": command}});
    let given = "{{$.inputs.parameters['wanted']}}";
    json!({
        "pipelineInfo": {"name": "causes"}, "schemaVersion": "2.1.0", "sdkVersion": "test",
        "root": {"dag": {"tasks": {
            "alone": {
                "componentRef": {"name": "guarded"}, "taskInfo": {"name": "alone"},
                "inputs": {"parameters": {"wanted": {"runtimeValue": {"constant": "9"}}}}
            },
            "for-loop-1": {
                "componentRef": {"name": "guarded"}, "taskInfo": {"name": "for-loop-1"},
                "parameterIterator": {"items": {"raw": "[\"4\", \"9\"]"}, "itemInput": "wanted"}
            }
        }}},
        "components": {
            "guarded": handler, "handler": work,
            "work": {"executorLabel": "work", "inputDefinitions": wanted},
            "tell": {"executorLabel": "tell", "inputDefinitions":
                {"parameters": {"status": {"parameterType": "TASK_FINAL_STATUS"}}}},
        },
        "deploymentSpec": {"executors": {
            "work": container(&["python3", "-c", SCRIPT, given]),
            "tell": container(&["echo", "{{$.inputs.parameters['status']}}"]),
        }},
    })
}

fn check_cause_is_reported(platform: &Platform) {
    let run = platform.submit("causes", &pipeline(), &json!({}));
    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "FAILED");
    let why = ended["error"]["message"].as_str().unwrap();
    assert!(why.contains("exit-handler-1.work failed"), "{why}");
    assert!(why.contains(CAUSE), "{why}");
    assert!(why.contains("(and 1 more task failed)"), "{why}");

    let (_, body) = platform.get(&format!("/apis/ferroflow/v1/runs/{run}/tasks"));
    let task = |path: &str| {
        let mut tasks = body["tasks"].as_array().unwrap().iter();
        let found = tasks.find(|task| task["path"] == format!("root.{path}"));
        found.unwrap_or_else(|| panic!("no {path}: {body:#}"))
    };
    let error = &task("alone.exit-handler-1.work")["error"];
    assert_eq!(error["message"], CAUSE);
    assert_eq!(error["exit_code"], 1);
    let log = error["log_tail"].as_str().unwrap();
    assert!(log.starts_with("counting\nTraceback"), "{log}");
    assert!(log.ends_with(CAUSE), "{log}");
    for (around, failed) in [
        ("alone", true),
        ("for-loop-1.0", false),
        ("for-loop-1.1", true),
    ] {
        let status = &task(&format!("{around}.tell"))["input_parameters"]["status"];
        assert_eq!(status["pipelineTaskName"], "exit-handler-1");
        let expected = if failed {
            let message = format!("task {around}.exit-handler-1.work failed: {CAUSE}");
            json!({"state": "FAILED", "error": {"code": 13, "message": message}})
        } else {
            json!({"state": "COMPLETE", "error": {}})
        };
        assert_eq!(status["state"], expected["state"], "{around}");
        assert_eq!(status["error"], expected["error"], "{around}");
    }
    let task_details = ended["run_details"]["task_details"].as_array().unwrap();
    let work = task_details
        .iter()
        .find(|task| task["display_name"] == "work" && task["state"] == "FAILED");
    let message = work.unwrap()["error"]["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("{CAUSE}\n")), "{message}");
}

#[test]
fn the_cause_is_reported_for_processes() {
    let data = tempfile::tempdir().unwrap();
    check_cause_is_reported(&Platform::start(data.path(), &[]));
}

#[test]
fn the_cause_is_reported_for_containers() {
    let engine = match Engine::open() {
        Ok(engine) => engine,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let data = tempfile::tempdir().unwrap();
    let settings = engine.settings(data.path(), &json!({}));
    check_cause_is_reported(&Platform::start(data.path(), &["--config", &settings]));
}

#[test]
fn the_cause_is_reported_for_pods() {
    let cluster = match Cluster::open() {
        Ok(cluster) => cluster,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let data = tempfile::tempdir().unwrap();
    let settings = cluster.settings(data.path(), &json!({}));
    check_cause_is_reported(&Platform::start(data.path(), &["--config", &settings]));
}

#[test]
fn the_output_of_a_failed_task_is_reported_and_kept() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let script = "echo first; echo last words >&2; exit 7".to_owned();
    let spec = shell_pipeline("fails", &[("bad".to_owned(), script, Vec::new())]);

    let run = platform.submit("fails", &spec, &json!({}));
    let ended = platform.wait(&run, Duration::from_secs(30));

    assert_eq!(ended["state"], "FAILED");
    let (_, tasks) = platform.get(&format!("/apis/ferroflow/v1/runs/{run}/tasks"));
    let tasks = tasks["tasks"].as_array().unwrap();
    let bad = tasks.iter().find(|task| task["name"] == "bad").unwrap();
    assert_eq!(bad["error"]["exit_code"], 7);
    assert_eq!(bad["error"]["log_tail"], "first\nlast words");
    let task = bad["task_id"].as_str().unwrap();
    for root in ["/apis/ferroflow/v1/runs", "/apis/v1alpha1/runs"] {
        let end = if root.contains("ferroflow") {
            format!("tasks/{task}")
        } else {
            format!("nodes/{task}")
        };
        let log = platform.text(&format!("{root}/{run}/{end}/log"), "*/*");
        assert_eq!(log, "first\nlast words\n");
    }
}
