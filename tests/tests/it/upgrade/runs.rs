//! Runs in every state that a version may leave behind.

use ferroflow_testkit::scene::eventually;
use ferroflow_testkit::{Platform, shell_pipeline};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::LIMIT;
use super::scene::{NO_SERVER, SERVED, Scene};

/// Commands that wait at a gate; further ones wait for a slot.
pub(crate) const GATED_COMMANDS: usize = 4;

/// Those of them that end while there is no server.
pub(crate) const ENDING_WITHOUT_SERVER: usize = 2;

fn tasks(tasks: &[(&str, String, &[&str])]) -> Value {
    let tasks: Vec<_> = tasks
        .iter()
        .map(|(key, script, upstream)| {
            let upstream = upstream.iter().map(|&up| up.to_owned()).collect();
            ((*key).to_owned(), script.clone(), upstream)
        })
        .collect();
    shell_pipeline("upgrade", &tasks)
}

/// The experiment by the name that the default one has, made by a client at the first call.
fn experiment(platform: &Platform) -> String {
    let (_, listed) = platform.get("/apis/v2beta1/experiments");
    let found = &listed["experiments"][0]["experiment_id"];
    if let Some(known) = found.as_str() {
        return known.to_owned();
    }
    let request = json!({"display_name": "Default"});
    let (status, body) = platform.post("/apis/v2beta1/experiments", &request);
    assert_eq!(status, 200, "{body}");
    body["experiment_id"].as_str().unwrap().to_owned()
}

fn submit(platform: &Platform, experiment: &str, name: &str, spec: &Value) -> String {
    let run = json!({"display_name": name, "pipeline_spec": spec, "experiment_id": experiment});
    let (status, made) = platform.post("/apis/v2beta1/runs", &run);
    assert_eq!(status, 200, "{made}");
    made["run_id"].as_str().unwrap().to_owned()
}

/// A run that succeeded with outputs, one that failed, one that was cancelled; and what a client
/// made besides: a pipeline, an experiment by the name that new runs look for.
pub(crate) fn create_ended_runs(scene: &Scene, platform: &Platform) -> Vec<String> {
    let experiment = experiment(platform);
    let mut good = tasks(&[(
        "makes",
        format!(
            "{}; echo 42 > \"$0\"; echo weights > \"$1\"",
            scene.record_command("makes")
        ),
        &[],
    )]);
    good["components"]["comp-makes"]["outputDefinitions"] = json!({
        "parameters": {"sum": {"parameterType": "NUMBER_INTEGER"}},
        "artifacts": {"model": {"artifactType": {"schemaTitle": "system.Model"}}},
    });
    let command = &mut good["deploymentSpec"]["executors"]["exec-makes"]["container"]["command"];
    let args = command.as_array_mut().unwrap();
    args.push(json!("{{$.outputs.parameters['sum'].output_file}}"));
    args.push(json!("{{$.outputs.artifacts['model'].path}}"));
    let (status, body) = platform.upload("kept", "kept.json", good.to_string().as_bytes());
    assert_eq!(status, 200, "{body}");
    let bad = tasks(&[("breaks", "echo last words; exit 3".to_owned(), &[])]);
    let endless = tasks(&[("stays", "sleep 600".to_owned(), &[])]);
    let submit = |name: &str, spec: &Value| submit(platform, &experiment, name, spec);
    let ended = [
        submit("good", &good),
        submit("bad", &bad),
        submit("endless", &endless),
    ];
    eventually(LIMIT, "the endless run begins", || {
        platform.get(&format!("/apis/v2beta1/runs/{}", ended[2])).1["state"] == "RUNNING"
    });
    let stop = format!("/apis/v2beta1/runs/{}:terminate", ended[2]);
    assert_eq!(platform.request("POST", &stop, &[], "").0, 200);
    let states = ended
        .each_ref()
        .map(|run| platform.wait(run, LIMIT)["state"].clone());
    assert_eq!(states, ["SUCCEEDED", "FAILED", "FAILED"]);
    for run in &ended {
        // What is compared later has to be complete.
        eventually(LIMIT, "its end is told", || {
            let last = platform.events(run).pop();
            last.is_some_and(|last| {
                let kind = last["type"].as_str().unwrap().to_owned();
                kind.starts_with("ai.ferroflow.run.") && !kind.ends_with("ing")
            })
        });
    }
    ended.into()
}

/// Runs that go on in the new version.
#[derive(Serialize, Deserialize)]
pub(crate) struct RunsUnderWay {
    retries: String,
    ends_alone: String,
    goes_on: String,
    in_a_loop: String,
    guarded: String,
    waits: String,
}

pub(crate) fn start_runs_under_way(scene: &Scene, platform: &Platform) -> RunsUnderWay {
    let experiment = experiment(platform);
    let submit = |name: &str, spec: &Value| submit(platform, &experiment, name, spec);
    let retries = submit("retries", &retrying(scene));
    eventually(LIMIT, "it waits for its next attempt", || {
        let events = platform.events(&retries);
        events
            .iter()
            .any(|event| event["type"] == "ai.ferroflow.task.retrying")
    });
    let chain = |name: &str, gate: &str| {
        let (first, second) = (format!("{name}-1"), format!("{name}-2"));
        tasks(&[
            ("first", scene.record_and_wait_command(&first, gate), &[]),
            ("second", scene.record_command(&second), &["first"]),
        ])
    };
    let ends_alone = submit("ends-alone", &chain("alone", NO_SERVER));
    let goes_on = submit("goes-on", &chain("on", SERVED));
    let in_a_loop = submit("in-a-loop", &looping(scene));
    let guarded = submit("guarded", &exit_handler(scene));
    for step in ["alone-1", "on-1", "loop-b", "guarded"] {
        eventually(LIMIT, step, || scene.times_run(step) == 1);
    }
    // Nothing is left for it: it waits for a slot.
    let waits = submit("waits", &chain("waits", SERVED));
    eventually(LIMIT, "it is queued", || {
        platform.get(&format!("/apis/v2beta1/runs/{waits}")).1["state"] == "RUNNING"
    });
    assert_eq!(scene.times_run("waits-1"), 0);
    RunsUnderWay {
        retries,
        ends_alone,
        goes_on,
        in_a_loop,
        guarded,
        waits,
    }
}

/// A step that fails the first time.
fn retrying(scene: &Scene) -> Value {
    let file = scene.path("retries");
    let script = format!(
        "{}; [ $(wc -l < '{file}') -ge 2 ]",
        scene.record_command("retries")
    );
    let mut spec = tasks(&[("again", script, &[])]);
    spec["root"]["dag"]["tasks"]["again"]["retryPolicy"] =
        json!({"maxRetryCount": 1, "backoffDuration": "3s", "backoffFactor": 1});
    spec
}

/// A loop over three items, one after the other; the second is held up.
fn looping(scene: &Scene) -> Value {
    let item = "{{$.inputs.parameters['item']}}";
    let script = format!(
        "echo ran >> \"{}\"; \
         while [ \"$0\" = b ] && [ -d {} ] && [ ! -e '{}' ]; do sleep 0.05; done",
        scene.path("loop-$0"),
        scene.data().display(),
        scene.path(SERVED)
    );
    let mut spec = tasks(&[("body", script, &[])]);
    spec["components"]["comp-body"]["inputDefinitions"] =
        json!({"parameters": {"item": {"parameterType": "STRING"}}});
    let command = &mut spec["deploymentSpec"]["executors"]["exec-body"]["container"]["command"];
    command.as_array_mut().unwrap().push(json!(item));
    let task = &mut spec["root"]["dag"]["tasks"]["body"];
    task["parameterIterator"] =
        json!({"items": {"raw": "[\"a\", \"b\", \"c\"]"}, "itemInput": "item"});
    task["iteratorPolicy"] = json!({"parallelismLimit": 1});
    spec
}

/// A step that fails in the end, and an exit task that keeps what it is told.
fn exit_handler(scene: &Scene) -> Value {
    let script = format!(
        "{}; exit 7",
        scene.record_and_wait_command("guarded", NO_SERVER)
    );
    let exit_script = format!(
        "{}; echo \"$0\" > '{}'",
        scene.record_command("exit"),
        scene.path("status")
    );
    let mut spec = tasks(&[
        ("work", script, &[]),
        ("exit", exit_script, &["exit-handler-1"]),
    ]);
    let work = spec["root"]["dag"]["tasks"]["work"].take();
    spec["components"]["comp-handler"] = json!({"dag": {"tasks": {"work": work}}});
    spec["components"]["comp-exit"]["inputDefinitions"] =
        json!({"parameters": {"status": {"parameterType": "TASK_FINAL_STATUS"}}});
    let command = &mut spec["deploymentSpec"]["executors"]["exec-exit"]["container"]["command"];
    let args = command.as_array_mut().unwrap();
    args.push(json!("{{$.inputs.parameters['status']}}"));
    let tasks = spec["root"]["dag"]["tasks"].as_object_mut().unwrap();
    tasks.remove("work");
    tasks.insert(
        "exit-handler-1".to_owned(),
        json!({"componentRef": {"name": "comp-handler"}, "taskInfo": {"name": "exit-handler-1"}}),
    );
    let exit = &mut spec["root"]["dag"]["tasks"]["exit"];
    exit["triggerPolicy"] = json!({"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"});
    exit["inputs"] =
        json!({"parameters": {"status": {"taskFinalStatus": {"producerTask": "exit-handler-1"}}}});
    spec
}

impl RunsUnderWay {
    pub(crate) fn ids(&self) -> impl Iterator<Item = &String> {
        [
            &self.retries,
            &self.ends_alone,
            &self.goes_on,
            &self.in_a_loop,
            &self.guarded,
            &self.waits,
        ]
        .into_iter()
    }

    pub(crate) fn assert_end_well(&self, scene: &Scene, platform: &Platform) {
        // Before its gate opens, so that it is the former version's launcher that goes on.
        let run = platform
            .get(&format!("/apis/v2beta1/runs/{}", self.goes_on))
            .1;
        assert_eq!(run["state"], "RUNNING");
        scene.open_gate(SERVED);
        for run in self.ids() {
            let ended = platform.wait(run, LIMIT);
            let expected = if run == &self.guarded {
                "FAILED"
            } else {
                "SUCCEEDED"
            };
            assert_eq!(ended["state"], expected, "{ended:#}");
        }
        for (step, times) in [
            ("makes", 1),
            ("retries", 2),
            ("alone-1", 1),
            ("alone-2", 1),
            ("on-1", 1),
            ("on-2", 1),
            ("loop-a", 1),
            ("loop-b", 1),
            ("loop-c", 1),
            ("guarded", 1),
            ("exit", 1),
            ("waits-1", 1),
            ("waits-2", 1),
        ] {
            assert_eq!(scene.times_run(step), times, "step {step}");
        }
        let final_status: Value = serde_json::from_str(&scene.text("status")).unwrap();
        assert_eq!(final_status["state"], "FAILED");
        let why = final_status["error"]["message"].as_str().unwrap();
        assert!(
            why.contains("exit-handler-1.work") && why.contains("exit code 7"),
            "{why}"
        );
    }
}

/// Runs of what the former version was given, and without an experiment.
pub(crate) fn check_new_runs(scene: &Scene, platform: &Platform) {
    let (_, pipelines) = platform.get("/apis/v2beta1/pipelines");
    let pipeline = &pipelines["pipelines"][0]["pipeline_id"];
    let reference = json!({"pipeline_id": pipeline});
    let run = json!({"display_name": "new", "pipeline_version_reference": reference});
    let (status, made) = platform.post("/apis/v2beta1/runs", &run);
    assert_eq!(status, 200, "{made}");
    let ended = platform.wait(made["run_id"].as_str().unwrap(), LIMIT);
    assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
    // Whether the former result is reused is for the fingerprint of the new version to say.
    assert!((1..=2).contains(&scene.times_run("makes")));
}
