//! A result of the cache is what running would have given: inputs stay what they are, and what changed
//! is not reused.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferroflow_testkit::Platform;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(1);

/// Key, script, inputs (name, producer).
type Task<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A pipeline out of tasks, each of which gives the artifact `out` and caches its result.
fn pipeline(tasks: &[Task<'_>]) -> Value {
    let artifact =
        json!({"artifactType": {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}});
    let mut spec = json!({
        "pipelineInfo": {"name": "caching"}, "schemaVersion": "2.1.0", "sdkVersion": "test",
        "components": {}, "deploymentSpec": {"executors": {}}, "root": {"dag": {"tasks": {}}},
    });
    for (key, script, inputs) in tasks {
        let mut component = json!({
            "executorLabel": format!("exec-{key}"),
            "outputDefinitions": {"artifacts": {"out": artifact}},
        });
        let mut task = json!({
            "componentRef": {"name": format!("comp-{key}")},
            "cachingOptions": {"enableCache": true}, "taskInfo": {"name": key},
        });
        for (name, producer) in *inputs {
            component["inputDefinitions"]["artifacts"][name] = artifact.clone();
            let from = json!({"producerTask": producer, "outputArtifactKey": "out"});
            task["inputs"]["artifacts"][name] = json!({"taskOutputArtifact": from});
        }
        spec["components"][format!("comp-{key}")] = component;
        spec["deploymentSpec"]["executors"][format!("exec-{key}")] =
            json!({"container": {"image": "busybox", "command": ["sh", "-ec", script]}});
        spec["root"]["dag"]["tasks"][key] = task;
    }
    spec
}

const OUT: &str = "{{$.outputs.artifacts['out'].path}}";
const DATA: &str = "{{$.inputs.artifacts['data'].path}}";

struct FinishedRun {
    run: Value,
    tasks: Vec<Value>,
}

impl FinishedRun {
    fn task(&self, name: &str) -> &Value {
        let found = self.tasks.iter().find(|task| task["name"] == name);
        found.unwrap_or_else(|| panic!("no task {name}: {:#}", self.run))
    }

    fn state(&self, name: &str) -> &str {
        self.task(name)["state"].as_str().unwrap()
    }
}

fn run(platform: &Platform, spec: &Value) -> FinishedRun {
    let id = platform.submit("caching", spec, &json!({}));
    wait_for_run(platform, &id)
}

fn wait_for_run(platform: &Platform, id: &str) -> FinishedRun {
    let run = platform.wait(id, LIMIT);
    let (_, all) = platform.get(&format!("/apis/ferroflow/v1/runs/{id}/tasks"));
    let tasks = all["tasks"].as_array().unwrap().clone();
    FinishedRun { run, tasks }
}

/// The id of a task's output artifact.
fn output(task: &Value) -> String {
    let id = &task["output_artifacts"]["out"]["ids"][0];
    id.as_str().unwrap().to_owned()
}

fn content(platform: &Platform, task: &Value) -> String {
    let path = format!("/apis/ferroflow/v1/artifacts/{}/content", output(task));
    platform.text(&path, "*/*")
}

fn artifact_path(platform: &Platform, task: &Value) -> PathBuf {
    let (_, found) = platform.get(&format!("/apis/ferroflow/v1/artifacts/{}", output(task)));
    PathBuf::from(found["uri"].as_str().unwrap())
}

/// A task that does its worst to its input, in both ways in which inputs are reached.
fn a_step_cannot_change_its_input(how: &str) {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &["--process-inputs", how]);
    let gives = format!("printf weights > {OUT}");
    let scribbles = format!(
        "chmod 777 {DATA} || true; echo more >> {DATA} || true; rm -f {DATA} || true; \
         mv {OUT} {DATA} || true; printf done > {OUT}"
    );
    let reads = format!("cat {DATA} > {OUT}");
    let spec = pipeline(&[
        ("gives", &gives, &[]),
        ("scribbles", &scribbles, &[("data", "gives")]),
        (
            "reads",
            &reads,
            &[("data", "gives"), ("after", "scribbles")],
        ),
    ]);

    let first = run(&platform, &spec);
    assert_eq!(first.run["state"], "SUCCEEDED", "{:#}", first.run);
    let again = run(&platform, &spec);

    for ended in [&first, &again] {
        for task in ["gives", "reads"] {
            assert_eq!(content(&platform, ended.task(task)), "weights", "{task}");
        }
    }
    assert_eq!(again.state("reads"), "CACHED");
    // It is told the same place, whatever path it reads it at.
    let shown = |ended: &FinishedRun| ended.task("reads")["input_artifacts"].to_string();
    assert_eq!(shown(&first), shown(&again));
}

#[test]
fn a_step_cannot_change_what_others_read() {
    a_step_cannot_change_its_input("auto");
}

#[test]
fn a_step_can_only_change_its_own_copy_where_nothing_can_be_mounted() {
    a_step_cannot_change_its_input("copy");
}

#[test]
fn a_changed_default_of_a_component_is_a_new_computation() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let with_default = |default: &str| {
        let script = format!("printf %s \"$0\" > {OUT}");
        let mut spec = pipeline(&[("greets", &script, &[])]);
        spec["components"]["comp-greets"]["inputDefinitions"]["parameters"]["who"] =
            json!({"parameterType": "STRING", "defaultValue": default, "isOptional": true});
        spec["deploymentSpec"]["executors"]["exec-greets"]["container"]["args"] =
            json!(["{{$.inputs.parameters['who']}}"]);
        spec
    };
    for (default, state) in [("a", "SUCCEEDED"), ("b", "SUCCEEDED"), ("a", "CACHED")] {
        let ended = run(&platform, &with_default(default));
        assert_eq!(ended.state("greets"), state, "{default}");
        assert_eq!(content(&platform, ended.task("greets")), default);
    }
}

fn importing(from: &Path) -> Value {
    let reads = format!("cat {DATA} > {OUT}");
    let mut spec = pipeline(&[
        ("reads", &reads, &[("data", "imports")]),
        ("imports", "", &[]),
    ]);
    let uri = from.display().to_string();
    spec["deploymentSpec"]["executors"]["exec-imports"] = json!({"importer": {
        "artifactUri": {"constant": uri},
        "typeSchema": {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"},
    }});
    spec
}

#[test]
fn imported_content_counts_as_it_is_now() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let file = data.path().join("rows.csv");
    let spec = importing(&file);
    for (text, state) in [
        ("1,2", "SUCCEEDED"),
        ("1,2", "CACHED"),
        ("3,4", "SUCCEEDED"),
        ("1,2", "CACHED"),
    ] {
        std::fs::write(&file, text).unwrap();
        let ended = run(&platform, &spec);
        assert_eq!(ended.state("reads"), state, "{text}: {:#}", ended.run);
        assert_eq!(content(&platform, ended.task("reads")), text);
    }
}

#[test]
fn content_that_is_not_what_its_digest_says_is_not_served() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(data.path(), &[]);
    let flag = data.path().join("flag");
    let gives = format!("printf weights > {OUT}");
    let waits = format!(
        "touch {flag}.seen; while [ ! -e {flag} ]; do sleep 0.05; done; printf x > {OUT}",
        flag = flag.display()
    );
    let reads = format!("cat {DATA} > {OUT}");
    let spec = pipeline(&[
        ("gives", &gives, &[]),
        ("waits", &waits, &[("data", "gives")]),
        ("reads", &reads, &[("data", "gives"), ("after", "waits")]),
    ]);
    let id = platform.submit("caching", &spec, &json!({}));
    let begun = Instant::now();
    while !data.path().join("flag.seen").exists() {
        assert!(begun.elapsed() < LIMIT, "the run does not get on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, all) = platform.get(&format!("/apis/ferroflow/v1/runs/{id}/tasks"));
    let tasks = all["tasks"].as_array().unwrap();
    let gives = tasks.iter().find(|task| task["name"] == "gives").unwrap();
    std::fs::write(artifact_path(&platform, gives), "WEIGHTS").unwrap();
    std::fs::write(&flag, "").unwrap();

    let first = wait_for_run(&platform, &id);

    assert_eq!(first.run["state"], "FAILED");
    let text = first.task("reads")["error"]["message"].as_str().unwrap();
    assert!(
        text.contains("is not what the task that made it left there"),
        "{text}"
    );
    let path = format!("/apis/ferroflow/v1/artifacts/{}/content", output(gives));
    let (status, body) = platform.get(&path);
    assert_eq!(status, 400, "{body}");
    assert!(
        body.to_string().contains("is not what its task left there"),
        "{body}"
    );

    // The task runs anew and says why.
    let again = run(&platform, &spec);
    assert_eq!(again.run["state"], "SUCCEEDED", "{:#}", again.run);
    let reason = again.task("gives")["cache"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("is not what its task left there"),
        "{reason}"
    );
    assert_eq!(content(&platform, again.task("reads")), "weights");
}
