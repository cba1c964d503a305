//! Recurring runs of one process over SQLite: what each kind of schedule makes, what stops it, and a
//! server that is killed while schedules fire.

mod stops;

use std::time::Duration;

use ferroflow_testkit::scene::eventually;
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(1);

const RECURRING: &str = "/apis/v2beta1/recurringruns";

fn platform() -> (tempfile::TempDir, Platform) {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    (data, platform)
}

/// A pipeline of one step with one text parameter.
fn echo(script: &str) -> Value {
    let mut spec = shell_pipeline("echo", &[("t".to_owned(), script.to_owned(), Vec::new())]);
    let text = json!({"parameters": {"text": {"parameterType": "STRING", "defaultValue": "x"}}});
    spec["root"]["inputDefinitions"] = text.clone();
    spec["components"]["comp-t"]["inputDefinitions"] = text;
    spec["root"]["dag"]["tasks"]["t"]["inputs"] =
        json!({"parameters": {"text": {"componentInputParameter": "text"}}});
    spec
}

fn every_second() -> Value {
    json!({"cron_schedule": {"cron": "* * * * * *"}})
}

fn body(name: &str, script: &str, trigger: &Value) -> Value {
    json!({
        "display_name": name, "pipeline_spec": echo(script), "trigger": trigger,
        "mode": "ENABLE", "max_concurrency": "1",
    })
}

fn create(platform: &Platform, body: &Value) -> String {
    let (status, made) = platform.post(RECURRING, body);
    assert_eq!(status, 200, "{made}");
    made["recurring_run_id"].as_str().unwrap().to_owned()
}

fn get(platform: &Platform, id: &str) -> Value {
    let (status, found) = platform.get(&format!("{RECURRING}/{id}"));
    assert_eq!(status, 200, "{found}");
    found
}

fn post(platform: &Platform, path: &str) {
    let (status, answer) = platform.request("POST", path, &[], "");
    assert_eq!(status, 200, "{path}: {answer}");
}

/// A filter as it is put into a URL.
fn filter(key: &str, value: &str) -> String {
    format!(
        "filter=%7B%22predicates%22%3A%5B%7B%22operation%22%3A%22EQUALS%22%2C%22key%22%3A%22{key}\
         %22%2C%22string_value%22%3A%22{value}%22%7D%5D%7D"
    )
}

/// All its runs, by the time at which they were due.
fn runs_of(platform: &Platform, id: &str) -> Vec<Value> {
    let filter = filter("recurring_run_id", id);
    let path = format!("/apis/v2beta1/runs?page_size=200&sort_by=scheduled_at&{filter}");
    let (status, listed) = platform.get(&path);
    assert_eq!(status, 200, "{listed}");
    listed["runs"].as_array().cloned().unwrap_or_default()
}

fn seconds(run: &Value) -> i64 {
    let text = run["scheduled_at"].as_str().unwrap();
    let clock: Vec<i64> = text[11..19]
        .split(':')
        .map(|one| one.parse().unwrap())
        .collect();
    clock[0] * 3600 + clock[1] * 60 + clock[2]
}

/// Fails unless each second from the first to the last has one run.
fn each_second_once(runs: &[Value]) {
    let due: Vec<_> = runs.iter().map(seconds).collect();
    for pair in due.windows(2) {
        assert_eq!((pair[1] - pair[0]).rem_euclid(86_400), 1, "{due:?}");
    }
}

fn state(platform: &Platform, id: &str) -> (String, String) {
    let found = get(platform, id);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&found["status"]), text(&found["error"]["message"]))
}

#[test]
fn a_schedule_makes_runs_with_macros_until_it_is_disabled() {
    let (_data, platform) = platform();
    let mut asked = body("nightly", "true", &every_second());
    let text = "[[Index]] [[ScheduledTime]] [[RunUUID]] {{$.scheduledTime.strftime('%s')}}";
    asked["runtime_config"] = json!({"parameters": {"text": text}});
    asked["description"] = json!("words");
    let id = create(&platform, &asked);
    let found = get(&platform, &id);
    assert_eq!(found["status"], "ENABLED");
    assert_eq!(found["mode"], "ENABLE");
    assert_eq!(found["pipeline_spec"]["pipelineInfo"]["name"], "echo");
    assert_eq!(
        found["trigger"],
        json!({"cron_schedule": {"cron": "* * * * * *"}})
    );
    assert_eq!(found["runtime_config"]["parameters"]["text"], text);

    eventually(LIMIT, "three runs", || runs_of(&platform, &id).len() >= 3);
    post(&platform, &format!("{RECURRING}/{id}:disable"));
    post(&platform, &format!("{RECURRING}/{id}:disable"));
    assert_eq!(get(&platform, &id)["status"], "DISABLED");
    let runs = runs_of(&platform, &id);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        runs_of(&platform, &id).len(),
        runs.len(),
        "a disabled one makes none"
    );
    each_second_once(&runs);
    for (at, run) in runs.iter().enumerate() {
        let run_id = run["run_id"].as_str().unwrap();
        let index = at + 1;
        assert_eq!(run["display_name"], format!("nightly-{index}"));
        assert_eq!(run["recurring_run_id"], id.as_str());
        assert_eq!(platform.wait(run_id, LIMIT)["state"], "SUCCEEDED");
        let (_, tasks) = platform.get(&format!("/apis/ferroflow/v1/runs/{run_id}/tasks"));
        let task = tasks["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|task| task["name"] == "t");
        let value = task.unwrap()["input_parameters"]["text"].to_string();
        let due: String = run["scheduled_at"].as_str().unwrap()[..19]
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        assert!(
            value.contains(&format!("{index} {due} {run_id} 1")),
            "{value}"
        );
    }

    // Missed times are caught up on.
    post(&platform, &format!("{RECURRING}/{id}:enable"));
    let all = runs.len() + 2;
    eventually(LIMIT, "missed times", || {
        runs_of(&platform, &id).len() >= all
    });
    each_second_once(&runs_of(&platform, &id));
}

#[test]
fn without_catch_up_only_the_newest_missed_time_is_run() {
    let (_data, platform) = platform();
    let mut asked = body(
        "newest",
        "true",
        &json!({"periodic_schedule": {
        "interval_second": "60", "start_time": "2026-01-01T00:00:10Z"}}),
    );
    asked["no_catchup"] = json!(true);
    let id = create(&platform, &asked);
    eventually(LIMIT, "a run", || !runs_of(&platform, &id).is_empty());
    let runs = runs_of(&platform, &id);
    assert!(runs.len() <= 2, "{runs:?}");
    // The phase is that of the start.
    assert!(runs.iter().all(|run| seconds(run) % 60 == 10), "{runs:?}");

    asked["no_catchup"] = json!(false);
    asked["max_concurrency"] = json!(10);
    let id = create(&platform, &asked);
    eventually(LIMIT, "many runs", || runs_of(&platform, &id).len() > 20);
    let first = &runs_of(&platform, &id)[0];
    assert_eq!(first["scheduled_at"], "2026-01-01T00:01:10Z");
}

#[test]
fn due_times_wait_for_a_slot() {
    let (_data, platform) = platform();
    let mut asked = body("slow", "sleep 2", &every_second());
    asked["max_concurrency"] = json!(2);
    let id = create(&platform, &asked);
    let under_way = || {
        let runs = runs_of(&platform, &id);
        let ended =
            |run: &&Value| ["SUCCEEDED", "FAILED"].contains(&run["state"].as_str().unwrap());
        (runs.len(), runs.len() - runs.iter().filter(ended).count())
    };
    eventually(LIMIT, "six runs", || {
        let (all, under_way) = under_way();
        assert!(under_way <= 2);
        all >= 6
    });
    post(&platform, &format!("{RECURRING}/{id}:disable"));
    each_second_once(&runs_of(&platform, &id));
}

#[test]
fn no_trigger_makes_one_run() {
    let (_data, platform) = platform();
    let id = create(&platform, &body("once", "true", &Value::Null));
    eventually(LIMIT, "its run", || runs_of(&platform, &id).len() == 1);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(runs_of(&platform, &id).len(), 1);
    assert_eq!(get(&platform, &id).get("trigger"), None);
}

#[test]
fn deletion_spares_runs_under_way() {
    let (_data, platform) = platform();
    let id = create(&platform, &body("gone", "sleep 3", &every_second()));
    eventually(LIMIT, "a run", || {
        runs_of(&platform, &id)
            .iter()
            .any(|run| run["state"] == "RUNNING")
    });
    let run = runs_of(&platform, &id)[0]["run_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("{RECURRING}/{id}");
    let wrong = platform.request(
        "DELETE",
        &format!("{path}?propagation_policy=SOME"),
        &[],
        "",
    );
    assert_eq!(wrong.0, 400, "{}", wrong.1);
    let (status, answer) = platform.request(
        "DELETE",
        &format!("{path}?propagation_policy=FOREGROUND"),
        &[],
        "",
    );
    assert_eq!(status, 200, "{answer}");
    assert_eq!(platform.get(&path).0, 404);
    assert_eq!(platform.wait(&run, LIMIT)["state"], "SUCCEEDED");
    assert_eq!(runs_of(&platform, &id).len(), 1, "a deleted one makes none");
}

#[test]
fn a_killed_server_misses_nothing_and_repeats_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut platform = Platform::start(data.path(), &[]);
    let mut asked = body("killed", "true", &every_second());
    asked["max_concurrency"] = json!(10);
    let id = create(&platform, &asked);
    for turn in 1..=4 {
        let wanted = runs_of(&platform, &id).len() + 2;
        eventually(LIMIT, "further runs", || {
            runs_of(&platform, &id).len() >= wanted
        });
        // At another moment of the second each time.
        std::thread::sleep(Duration::from_millis(230 * turn));
        platform.kill();
        platform = Platform::start(data.path(), &[]);
    }
    post(&platform, &format!("{RECURRING}/{id}:disable"));
    let runs = runs_of(&platform, &id);
    each_second_once(&runs);
    println!("{} runs over four kills, one a second", runs.len());
    let path = "/apis/ferroflow/v1/events?follow=false&types=ai.ferroflow.recurring-run.triggered";
    let events = || {
        let text = platform.text(path, "application/x-ndjson");
        let event = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].clone();
        text.lines().map(event).collect::<Vec<_>>()
    };
    eventually(LIMIT, "an event for each", || events().len() >= runs.len());
    for (at, (event, run)) in events().iter().zip(&runs).enumerate() {
        assert_eq!(event["data"]["run_id"], run["run_id"]);
        assert_eq!(event["data"]["index"], at + 1);
    }
}

#[test]
fn invalid_recurring_runs_are_refused_and_not_stored() {
    let (_data, platform) = platform();
    let cron = |cron: &str| json!({"cron_schedule": {"cron": cron}});
    for (trigger, field, part) in [
        (cron("61 * * * *"), "cron", "minute \\\"61\\\""),
        (cron("* * *"), "cron", "it has 3 fields"),
        (cron(""), "cron", "it has 0 fields"),
        (cron("0 0 30 2 *"), "cron", "can never fire"),
        (cron("CRON_TZ=Mars/Olympus @daily"), "cron", "no time zone"),
        (
            json!({"periodic_schedule": {}}),
            "interval_second",
            "at least 1. Received 0",
        ),
        (
            json!({"periodic_schedule": {"interval_second": "60", "end_time": "2020-01-01T00:00:00Z"}}),
            "end_time",
            "can never fire",
        ),
        (
            json!({"cron_schedule": {"cron": "@daily", "start_time": "2027-01-02T00:00:00Z",
                "end_time": "2027-01-01T00:00:00Z"}}),
            "end_time",
            "is not after start_time",
        ),
    ] {
        let (status, answer) = platform.post(RECURRING, &body("bad", "true", &trigger));
        let answer = answer.to_string();
        assert_eq!(status, 400, "{trigger}: {answer}");
        assert!(
            answer.contains(field) && answer.contains(part),
            "{trigger}: {answer}"
        );
    }
    for (key, value, part) in [
        (
            "max_concurrency",
            json!(0),
            "at least 1 and at most 10. Received 0",
        ),
        ("max_concurrency", json!(11), "Received 11"),
        ("display_name", json!(""), "cannot be empty"),
        (
            "experiment_id",
            json!("00000000-0000-4000-8000-000000000000"),
            "not found",
        ),
        (
            "runtime_config",
            json!({"parameters": {"zz": 1}}),
            "not required by pipeline: zz",
        ),
        ("pipeline_spec", Value::Null, "pipeline_source"),
    ] {
        let mut asked = body("bad", "true", &every_second());
        asked[key] = value;
        let (status, answer) = platform.post(RECURRING, &asked);
        assert!([400, 404].contains(&status), "{key}: {status} {answer}");
        assert!(answer.to_string().contains(part), "{key}: {answer}");
    }
    assert_eq!(platform.get(&format!("{RECURRING}/nonsense")).0, 400);
    let (status, listed) = platform.get(RECURRING);
    assert_eq!(
        (status, listed.get("recurringRuns")),
        (200, None),
        "{listed}"
    );
}

#[test]
fn due_times_are_listed_in_the_zone_of_the_schedule() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &["--time-zone", "Asia/Tokyo"]);
    let daily = json!({"cron_schedule": {"cron": "30 9 * * *"}});
    let mut asked = body("daily", "true", &daily);
    asked["mode"] = json!("DISABLE");
    let id = create(&platform, &asked);
    let path = format!("/apis/ferroflow/v1/recurringruns/{id}/due-times");
    let (status, answer) = platform.get(&format!("{path}?page_size=3"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["time_zone"], "Asia/Tokyo");
    let times = answer["times"].as_array().unwrap();
    assert_eq!(times.len(), 3);
    assert!(
        times
            .iter()
            .all(|at| at.as_str().unwrap().ends_with("T00:30:00Z")),
        "{answer}"
    );
    assert_eq!(platform.get(&path).1["times"].as_array().unwrap().len(), 5);
}
