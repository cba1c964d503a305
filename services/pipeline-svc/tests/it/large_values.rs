//! How large values may be: where they are refused, and how they are read.

use std::process::Command;
use std::time::Duration;

use ferroflow_testkit::{Platform, binary};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(1);
const MIB: usize = 1024 * 1024;

/// `give` gives a text of `size` bytes; `take` is given it and `text`, and uses neither.
fn pipeline() -> Value {
    let text = json!({"parameterType": "STRING"});
    let inputs = json!({"parameters": {"text": text, "given": text}});
    let script = "mkdir -p \"$(dirname \"$0\")\"; head -c \"$1\" /dev/zero | tr '\\0' x > \"$0\"";
    let give = [
        "sh",
        "-c",
        script,
        "{{$.outputs.parameters['given'].output_file}}",
        "{{$.inputs.parameters['size']}}",
    ];
    json!({
        "pipelineInfo": {"name": "values"}, "schemaVersion": "2.1.0", "sdkVersion": "test",
        "components": {
            "comp-give": {
                "executorLabel": "exec-give",
                "inputDefinitions": {"parameters": {"size": {"parameterType": "NUMBER_INTEGER"}}},
                "outputDefinitions": {"parameters": {"given": text}},
            },
            "comp-take": {"executorLabel": "exec-take", "inputDefinitions": inputs},
        },
        "deploymentSpec": {"executors": {
            "exec-give": {"container": {"image": "busybox", "command": give}},
            "exec-take": {"container": {"image": "busybox", "command": ["true"]}},
        }},
        "root": {
            "inputDefinitions": {"parameters": {
                "text": text,
                "size": {"parameterType": "NUMBER_INTEGER"},
            }},
            "dag": {"tasks": {
                "give": {
                    "componentRef": {"name": "comp-give"}, "taskInfo": {"name": "give"},
                    "inputs": {"parameters": {"size": {"componentInputParameter": "size"}}},
                },
                "take": {
                    "componentRef": {"name": "comp-take"}, "taskInfo": {"name": "take"},
                    "dependentTasks": ["give"],
                    "inputs": {"parameters": {
                        "text": {"componentInputParameter": "text"},
                        "given": {"taskOutputParameter": {
                            "producerTask": "give", "outputParameterKey": "given",
                        }},
                    }},
                },
            }},
        },
    })
}

fn request(text: &str, size: usize) -> Value {
    json!({
        "display_name": "values",
        "pipeline_spec": pipeline(),
        "runtime_config": {"parameters": {"text": text, "size": size}},
    })
}

/// The task of a path among those of a run.
fn task(platform: &Platform, run: &str, path: &str) -> Value {
    let (status, list) = platform.get(&format!("/apis/ferroflow/v1/runs/{run}/tasks"));
    assert_eq!(status, 200, "{list}");
    let tasks = list["tasks"].as_array().unwrap();
    let found = tasks.iter().find(|task| task["path"] == path);
    found
        .unwrap_or_else(|| panic!("no task {path} in {list}"))
        .clone()
}

#[test]
fn lists_leave_large_values_out_and_say_where_they_are() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let text = "t".repeat(MIB);
    let parameters = json!({"text": text, "size": 2 * MIB});
    let run = platform.submit("values", &pipeline(), &parameters);
    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "SUCCEEDED", "{:?}", ended["error"]);

    let take = task(&platform, &run, "root.take");
    assert_eq!(
        take["elided"],
        json!(["input_parameters.given", "input_parameters.text"])
    );
    assert_eq!(take["input_parameters"], json!({}));
    let path = format!(
        "/apis/ferroflow/v1/runs/{run}/tasks/{}",
        take["task_id"].as_str().unwrap()
    );
    let (_, whole) = platform.get(&path);
    assert_eq!(whole["input_parameters"]["text"], text);
    assert_eq!(whole["elided"], Value::Null);
    let (status, given) = platform.get(&format!("{path}/parameters/given"));
    assert_eq!((status, given.as_str().unwrap().len()), (200, 2 * MIB));
    let (status, body) = platform.get(&format!("{path}/parameters/given?output=true"));
    assert_eq!(status, 404, "{body}");
    let give = task(&platform, &run, "root.give");
    let path = format!(
        "/apis/ferroflow/v1/runs/{run}/tasks/{}/parameters/given?output=true",
        give["task_id"].as_str().unwrap()
    );
    assert_eq!(platform.get(&path).1, given);

    let (_, list) = platform.get("/apis/v2beta1/runs");
    let shown = list["runs"][0]["runtime_config"]["parameters"]["text"].clone();
    assert!(shown.as_str().unwrap().contains("GetRun"), "{shown}");
    let (_, one) = platform.get(&format!("/apis/v2beta1/runs/{run}"));
    assert_eq!(one["runtime_config"]["parameters"]["text"], text);
}

#[test]
fn one_limit_holds_wherever_a_value_comes_in() {
    let data = tempfile::tempdir().unwrap();
    let max = 64 * 1024;
    let platform = Platform::start(data.path(), &["--value-max", &max.to_string()]);
    let runs = "/apis/v2beta1/runs";

    let largest = "t".repeat(max);
    let (status, run) = platform.post(runs, &request(&largest, max));
    assert_eq!(status, 200, "{run}");
    let run = run["run_id"].as_str().unwrap().to_owned();
    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "SUCCEEDED", "{:?}", ended["error"]);

    // Whoever gives it to a run is told by name.
    let (status, body) = platform.post(runs, &request(&format!("{largest}t"), max));
    assert_eq!(status, 400, "{body}");
    for named in [
        "runtime_config.parameters.text",
        "65537 bytes",
        "65536",
        "value_max",
    ] {
        assert!(body.to_string().contains(named), "{body}");
    }
    // Likewise what macros make longer.
    let (status, body) = platform.post(runs, &request(&"[[RunUUID]]".repeat(max / 11), max));
    assert_eq!(status, 400, "{body}");
    assert!(
        body.to_string().contains("runtime_config.parameters.text"),
        "{body}"
    );
    // What is larger than any request can be is refused before it is read.
    let (status, body) = platform.post(runs, &request(&"t".repeat(9 * MIB), max));
    assert_eq!(status, 400, "{body}");
    assert!(body.to_string().contains("gateway.body_max"), "{body}");

    // A task that gives it fails.
    let (_, run) = platform.post(runs, &request("t", max + 1));
    let run = run["run_id"].as_str().unwrap().to_owned();
    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "FAILED", "{ended}");
    let message = task(&platform, &run, "root.give")["error"]["message"].to_string();
    for named in ["output given", "65537 bytes", "value_max"] {
        assert!(message.contains(named), "{message}");
    }
    // So does one whose inputs would be put together to more than a task can be given.
    let mut request = request("t", max);
    let given = "{{$.inputs.parameters['given']}}".repeat(2000);
    let constant = json!({"runtimeValue": {"constant": given}});
    request["pipeline_spec"]["root"]["dag"]["tasks"]["take"]["inputs"]["parameters"]["text"] =
        constant;
    let (_, run) = platform.post(runs, &request);
    let run = run["run_id"].as_str().unwrap().to_owned();
    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "FAILED", "{ended}");
    let message = task(&platform, &run, "root.take")["error"]["message"].to_string();
    assert!(message.contains("value_max"), "{message}");
    // Nothing is left of what was refused.
    let (_, list) = platform.get(runs);
    assert_eq!(list["total_size"], 3, "{list}");
}

#[test]
fn messages_beyond_grpcs_usual_limit_pass_each_hop() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let size = 10 * MIB;
    let text = "t".repeat(size);
    let run = platform.submit("large", &pipeline(), &json!({"text": text, "size": 1}));
    let (status, shown) = platform.get(&format!("/apis/v2beta1/runs/{run}"));
    assert_eq!(status, 200);
    let parameters = &shown["runtime_config"]["parameters"];
    assert_eq!(parameters["text"].as_str().map(str::len), Some(size));

    let mut ferroflow = Command::new(binary());
    ferroflow.args(["run", "get", &run, "--endpoint", platform.url()]);
    let output = ferroflow.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("large"));

    // Together they are more than one answer may have; each one is stored and shown whole.
    let recurring = "/apis/v2beta1/recurringruns";
    for number in 0..3 {
        let mut asked = request(&text, 1);
        asked["display_name"] = json!(format!("large-{number}"));
        asked["trigger"] = json!({"cron_schedule": {"cron": "0 0 1 1 *"}});
        asked["mode"] = json!("DISABLE");
        asked["max_concurrency"] = json!("1");
        let (status, made) = platform.post(recurring, &asked);
        assert_eq!(status, 200, "{}", made["message"]);
    }
    let (status, listed) = platform.get(recurring);
    assert_eq!(status, 200, "{}", listed["message"]);
    let listed = listed["recurringRuns"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3);
    for one in listed {
        let shown = one["runtime_config"]["parameters"]["text"].clone();
        let shown = shown.as_str().unwrap();
        assert!(shown.len() < 1024, "{} bytes", shown.len());
        assert!(shown.contains("GetRecurringRun"), "{shown}");
        let id = one["recurring_run_id"].as_str().unwrap();
        let (_, whole) = platform.get(&format!("{recurring}/{id}"));
        let whole = &whole["runtime_config"]["parameters"]["text"];
        assert_eq!(whole.as_str().map(str::len), Some(size));
    }
}
