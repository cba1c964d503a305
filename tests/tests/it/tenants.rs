//! Callers that are limited to a namespace: what is in another one is not there for them, by any RPC.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const LIMIT: Duration = Duration::from_mins(1);

const KFP: &str = "/apis/v2beta1";
const OURS: &str = "/apis/ferroflow/v1";

const KEY_A: &str = "key-a";
const KEY_B: &str = "key-b";
const KEY_ALL: &str = "key-all";

/// RPCs that are about no namespace.
const NONE: [&str; 4] = [
    "Health.Check",
    "Health.Watch",
    "HealthzService.GetHealthz",
    "ServerReflection.ServerReflectionInfo",
];

/// Services that no client reaches.
const INTERNAL: [&str; 1] = ["ferroflow.attempts.v1.AttemptService"];

/// What one hears to whom the things are not: status, RPC, method, path, and the body's name.
const CALLS: &str = "\
403 ExperimentService.CreateExperiment POST /apis/v2beta1/experiments named
404 ExperimentService.GetExperiment GET /apis/v2beta1/experiments/{experiment}
403 ExperimentService.ListExperiments GET /apis/v2beta1/experiments?namespace=b
404 ExperimentService.ArchiveExperiment POST /apis/v2beta1/experiments/{experiment}:archive
404 ExperimentService.UnarchiveExperiment POST /apis/v2beta1/experiments/{experiment}:unarchive
404 ExperimentService.DeleteExperiment DELETE /apis/v2beta1/experiments/{experiment}
403 PipelineService.CreatePipeline POST /apis/v2beta1/pipelines named
404 PipelineService.GetPipeline GET /apis/v2beta1/pipelines/{pipeline}
403 PipelineService.GetPipelineByName GET /apis/v2beta1/pipelines/names/theirs?namespace=b
403 PipelineService.ListPipelines GET /apis/v2beta1/pipelines?namespace=b
404 PipelineService.DeletePipeline DELETE /apis/v2beta1/pipelines/{pipeline}?cascade=true
404 PipelineService.UpdatePipeline PATCH /apis/v2beta1/pipelines/{pipeline} renamed
403 PipelineService.CreatePipelineAndVersion POST /apis/v2beta1/pipelines/create both
404 PipelineService.CreatePipelineVersion POST /apis/v2beta1/pipelines/{pipeline}/versions new_version
404 PipelineService.GetPipelineVersion GET /apis/v2beta1/pipelines/{pipeline}/versions/{version}
404 PipelineService.ListPipelineVersions GET /apis/v2beta1/pipelines/{pipeline}/versions
404 PipelineService.UpdatePipelineVersion PATCH /apis/v2beta1/pipelines/{pipeline}/versions/{version} renamed
404 PipelineService.DeletePipelineVersion DELETE /apis/v2beta1/pipelines/{pipeline}/versions/{version}
404 RunService.CreateRun POST /apis/v2beta1/runs inline
404 RunService.CreateRun POST /apis/v2beta1/runs theirs
404 RunService.GetRun GET /apis/v2beta1/runs/{run}
403 RunService.ListRuns GET /apis/v2beta1/runs?namespace=b
404 RunService.ListRuns GET /apis/v2beta1/runs?experiment_id={experiment}
404 RunService.ArchiveRun POST /apis/v2beta1/runs/{run}:archive
404 RunService.UnarchiveRun POST /apis/v2beta1/runs/{run}:unarchive
404 RunService.TerminateRun POST /apis/v2beta1/runs/{run}:terminate
404 RunService.RetryRun POST /apis/v2beta1/runs/{run}:retry
404 RunService.DeleteRun DELETE /apis/v2beta1/runs/{run}
404 RecurringRunService.CreateRecurringRun POST /apis/v2beta1/recurringruns scheduled
404 RecurringRunService.CreateRecurringRun POST /apis/v2beta1/recurringruns scheduled_version
404 RecurringRunService.GetRecurringRun GET /apis/v2beta1/recurringruns/{recurring}
403 RecurringRunService.ListRecurringRuns GET /apis/v2beta1/recurringruns?namespace=b
404 RecurringRunService.ListRecurringRuns GET /apis/v2beta1/recurringruns?experiment_id={experiment}
404 RecurringRunService.EnableRecurringRun POST /apis/v2beta1/recurringruns/{recurring}:enable
404 RecurringRunService.DisableRecurringRun POST /apis/v2beta1/recurringruns/{recurring}:disable
404 RecurringRunService.DeleteRecurringRun DELETE /apis/v2beta1/recurringruns/{recurring}
404 ScheduleService.ListDueTimes GET /apis/ferroflow/v1/recurringruns/{recurring}/due-times
404 TaskService.ListTasks GET /apis/ferroflow/v1/runs/{run}/tasks
404 TaskService.GetTask GET /apis/ferroflow/v1/runs/{run}/tasks/{task}
404 TaskService.ReadParameter GET /apis/ferroflow/v1/runs/{run}/tasks/{task}/parameters/word?output=true
404 TaskService.StreamLogs GET /apis/ferroflow/v1/runs/{run}/tasks/{task}/log
403 TaskService.ListArtifacts GET /apis/ferroflow/v1/artifacts?namespace=b
404 TaskService.ListArtifacts GET /apis/ferroflow/v1/artifacts?run_id={run}
404 TaskService.ListArtifacts GET /apis/ferroflow/v1/artifacts?task_id={task}
404 TaskService.GetArtifact GET /apis/ferroflow/v1/artifacts/{artifact}
404 TaskService.ListArtifactFiles GET /apis/ferroflow/v1/artifacts/{artifact}/files
404 TaskService.ReadArtifact GET /apis/ferroflow/v1/artifacts/{artifact}/content
404 TaskService.ReadRunArtifact GET /apis/v2beta1/runs/{run}/nodes/{task}/artifacts/kept:read
403 EventService.Watch GET /apis/ferroflow/v1/events?follow=false&namespaces=b
403 EventService.Watch GET /apis/ferroflow/v1/events?follow=false&subject_prefix=namespaces/b/runs/{run}";

/// Somebody who calls.
#[derive(Clone, Copy)]
struct Caller<'p> {
    platform: &'p Platform,
    key: &'static str,
}

impl Caller<'_> {
    fn ask(self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let authorization = format!("Bearer {}", self.key);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let headers = [("authorization", authorization.as_str())];
        self.platform.request(method, path, &headers, &body)
    }

    fn create(self, path: &str, body: &Value, id: &str) -> String {
        let (status, created) = self.ask("POST", path, body);
        assert_eq!(status, 200, "{path}: {created}");
        created[id].as_str().unwrap().to_owned()
    }

    fn upload(self, query: &str) -> (u16, Value) {
        let boundary = "of-the-form";
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"uploadfile\"; \
             filename=\"p.json\"\r\n\r\n{}\r\n--{boundary}--\r\n",
            pipeline_spec()
        );
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let request = agent
            .post(format!("{}{KFP}/pipelines/{query}", self.platform.url()))
            .header("authorization", format!("Bearer {}", self.key))
            .header(
                "content-type",
                format!("multipart/form-data; boundary={boundary}"),
            );
        let mut answer = request.send(body).unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap())
    }
}

/// One step that makes an artifact and a parameter.
fn pipeline_spec() -> Value {
    let script =
        "mkdir -p \"$(dirname \"$0\")\" \"$(dirname \"$1\")\"; echo secret | tee \"$0\" > \"$1\"";
    let command = [
        "sh",
        "-c",
        script,
        "{{$.outputs.artifacts['kept'].path}}",
        "{{$.outputs.parameters['word'].output_file}}",
    ];
    json!({
        "pipelineInfo": {"name": "theirs"}, "schemaVersion": "2.1.0", "sdkVersion": "test",
        "components": {"comp-t": {
            "executorLabel": "exec-t",
            "outputDefinitions": {
                "artifacts": {"kept": {"artifactType": {
                    "schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}}},
                "parameters": {"word": {"parameterType": "STRING"}},
            },
        }},
        "deploymentSpec": {"executors": {
            "exec-t": {"container": {"image": "busybox", "command": command}},
        }},
        "root": {"dag": {"tasks": {"t": {
            "componentRef": {"name": "comp-t"}, "taskInfo": {"name": "t"},
        }}}},
    })
}

/// Everything that one has.
struct TenantObjects {
    experiment: String,
    pipeline: String,
    version: String,
    run: String,
    task: String,
    artifact: String,
    recurring: String,
}

impl TenantObjects {
    fn make(caller: Caller<'_>) -> Self {
        let experiments = format!("{KFP}/experiments");
        let folder = json!({"display_name": "theirs"});
        let experiment = caller.create(&experiments, &folder, "experiment_id");
        let (status, made) = caller.upload("upload?name=theirs");
        assert_eq!(status, 200, "{made}");
        let pipeline = made["pipeline_id"].as_str().unwrap().to_owned();
        let versions = format!("{KFP}/pipelines/{pipeline}/versions");
        let (_, listed) = caller.ask("GET", &versions, &Value::Null);
        let version = &listed["pipeline_versions"][0]["pipeline_version_id"];
        let version = version.as_str().unwrap().to_owned();
        let mut request = json!({
            "display_name": "theirs", "experiment_id": experiment,
            "pipeline_version_reference": {"pipeline_id": pipeline},
        });
        let run = caller.create(&format!("{KFP}/runs"), &request, "run_id");
        request["trigger"] = json!({"cron_schedule": {"cron": "0 0 1 1 *"}});
        request["max_concurrency"] = json!("1");
        request["mode"] = json!("ENABLE");
        let recurring = caller.create(
            &format!("{KFP}/recurringruns"),
            &request,
            "recurring_run_id",
        );
        let begun = Instant::now();
        while caller
            .ask("GET", &format!("{KFP}/runs/{run}"), &Value::Null)
            .1["state"]
            != "SUCCEEDED"
        {
            assert!(begun.elapsed() < LIMIT, "the run has not ended");
            std::thread::sleep(Duration::from_millis(50));
        }
        let (_, tasks) = caller.ask("GET", &format!("{OURS}/runs/{run}/tasks"), &Value::Null);
        let tasks = tasks["tasks"].as_array().unwrap();
        let task = tasks.iter().find(|task| task["name"] == "t").unwrap();
        let artifact = &task["output_artifacts"]["kept"]["ids"][0];
        Self {
            experiment,
            pipeline,
            version,
            run,
            task: task["task_id"].as_str().unwrap().to_owned(),
            artifact: artifact.as_str().unwrap().to_owned(),
            recurring,
        }
    }

    /// The bodies that [`CALLS`] names.
    fn body(&self, name: &str) -> Value {
        let (experiment, pipeline) = (&self.experiment, &self.pipeline);
        let named = json!({"display_name": "n", "namespace": "b"});
        let package = json!({"pipeline_url": "https://example.org/p.yaml"});
        let reference = json!({"pipeline_id": pipeline, "pipeline_version_id": self.version});
        let schedule = |mut run: Value| {
            run["trigger"] = json!({"cron_schedule": {"cron": "0 0 1 1 *"}});
            run["max_concurrency"] = json!("1");
            run["mode"] = json!("ENABLE");
            run
        };
        let inline = json!({
            "display_name": "mine", "experiment_id": experiment, "pipeline_spec": pipeline_spec(),
        });
        let theirs = json!({"display_name": "mine", "pipeline_version_reference": reference});
        match name {
            "" => Value::Null,
            "named" => named,
            "both" => json!({"pipeline": named, "pipeline_version": {"package_url": package}}),
            "new_version" => json!({"name": "n", "package_url": package}),
            "renamed" => json!({"display_name": "mine now"}),
            "inline" => inline,
            "theirs" => theirs,
            "scheduled" => schedule(inline),
            "scheduled_version" => schedule(theirs),
            other => panic!("there is no body {other}"),
        }
    }

    fn calls(&self) -> Vec<Call> {
        let ids = [
            ("{experiment}", &self.experiment),
            ("{pipeline}", &self.pipeline),
            ("{version}", &self.version),
            ("{run}", &self.run),
            ("{task}", &self.task),
            ("{artifact}", &self.artifact),
            ("{recurring}", &self.recurring),
        ];
        let call = |line: &'static str| {
            let mut fields = line.split(' ');
            let mut next_field = || fields.next().unwrap_or_default();
            let (expected, rpc, method, path) = (
                next_field().parse().unwrap(),
                next_field(),
                next_field(),
                next_field(),
            );
            let body = self.body(next_field());
            let fill = |path: String, (name, id): &(&str, &String)| path.replace(name, id);
            let path = ids.iter().fold(path.to_owned(), fill);
            Call {
                expected,
                rpc,
                method,
                path,
                body,
            }
        };
        CALLS.lines().map(call).collect()
    }
}

struct Call {
    expected: u16,
    rpc: &'static str,
    method: &'static str,
    path: String,
    body: Value,
}

/// Every RPC that a client can call, as `Service.Rpc`.
fn rpcs() -> BTreeSet<String> {
    let pool = ferroflow_proto::pool();
    let services = pool
        .services()
        .filter(|service| !INTERNAL.contains(&service.full_name()));
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .map(|method| format!("{}.{}", method.parent_service().name(), method.name()))
        .collect()
}

/// A platform with three keys: of namespace a, of b, and of the single user.
fn platform(data: &Path) -> Platform {
    let keys = data.join("keys");
    let hash = |key: &str| hex::encode(Sha256::digest(key.as_bytes()));
    let (a, b, all) = (hash(KEY_A), hash(KEY_B), hash(KEY_ALL));
    let text = format!("ann: {a} namespaces=a\nbob: {b} namespaces=b\neve: {all}\n");
    std::fs::write(&keys, text).unwrap();
    let keys = keys.display().to_string();
    Platform::start(&data.join("data"), &["--api-keys-file", &keys])
}

#[test]
fn what_is_in_another_namespace_is_not_there_by_any_rpc() {
    let data = tempfile::tempdir().unwrap();
    let platform = platform(data.path());
    let with = |key| Caller {
        platform: &platform,
        key,
    };
    let (ann, bob, eve) = (with(KEY_A), with(KEY_B), with(KEY_ALL));
    let theirs = TenantObjects::make(bob);
    let own = TenantObjects::make(ann);

    let mut called: BTreeSet<String> = NONE.map(str::to_owned).into();
    for call in theirs.calls() {
        let Call {
            expected,
            rpc,
            method,
            path,
            body,
        } = call;
        let (status, answer) = ann.ask(method, &path, &body);
        assert_eq!(status, expected, "{rpc}: {method} {path}: {answer}");
        assert!(!answer.to_string().contains("secret"), "{rpc}: {answer}");
        called.insert(rpc.to_owned());
        // The single user acts in a namespace of its own, whatever it says of namespaces.
        if expected == 404 && !path.contains("experiment_id=") {
            let (status, answer) = eve.ask(method, &path, &body);
            assert_eq!(status, 404, "{rpc} of the single user: {answer}");
        }
    }
    assert_eq!(ann.upload("upload?name=n&namespace=b").0, 403);
    let to_theirs = format!("upload_version?name=n&pipelineid={}", theirs.pipeline);
    assert_eq!(ann.upload(&to_theirs).0, 404);
    called.extend(
        [
            "UploadService.UploadPipeline",
            "UploadService.UploadPipelineVersion",
        ]
        .map(str::to_owned),
    );
    let not_called: Vec<_> = rpcs().difference(&called).cloned().collect();
    assert!(
        not_called.is_empty(),
        "RPCs that were not tried: {not_called:?}"
    );

    lists_are_the_callers(ann, &own, &theirs);
    nothing_was_changed(bob, &theirs);
}

/// Lists that name no namespace have what the caller has.
fn lists_are_the_callers(ann: Caller<'_>, own: &TenantObjects, theirs: &TenantObjects) {
    for (list, name) in [
        ("experiments", "experiments"),
        ("pipelines", "pipelines"),
        ("runs", "runs"),
        ("recurringruns", "recurringRuns"),
    ] {
        let (_, listed) = ann.ask("GET", &format!("{KFP}/{list}?page_size=100"), &Value::Null);
        let text = listed.to_string();
        assert!(
            listed[name].as_array().is_some_and(|all| !all.is_empty()),
            "{text}"
        );
        assert!(
            !text.contains(&theirs.experiment) && !text.contains(&theirs.pipeline),
            "{text}"
        );
    }
    let (_, artifacts) = ann.ask("GET", &format!("{OURS}/artifacts"), &Value::Null);
    let ids: Vec<_> = artifacts["artifacts"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 1, "{artifacts}");
    assert_eq!(ids[0]["artifact_id"], own.artifact.as_str());
}

/// It is all there for its owner.
fn nothing_was_changed(bob: Caller<'_>, theirs: &TenantObjects) {
    for Call {
        rpc, method, path, ..
    } in theirs.calls()
    {
        if method == "GET" {
            let (status, body) = bob.ask("GET", &path, &Value::Null);
            assert_eq!(status, 200, "{rpc}: {path}: {body}");
        }
    }
    let (_, experiment) = bob.ask(
        "GET",
        &format!("{KFP}/experiments/{}", theirs.experiment),
        &Value::Null,
    );
    assert_eq!(experiment["storage_state"], "AVAILABLE");
}

#[test]
fn events_are_those_of_the_callers_namespaces() {
    let data = tempfile::tempdir().unwrap();
    let platform = platform(data.path());
    for key in [KEY_A, KEY_B] {
        let caller = Caller {
            platform: &platform,
            key,
        };
        let folder = json!({"display_name": key});
        caller.create(&format!("{KFP}/experiments"), &folder, "experiment_id");
    }
    let visible_events = |key: &str| {
        let agent = ureq::Agent::new_with_defaults();
        let request = agent
            .get(format!("{}{OURS}/events?follow=false", platform.url()))
            .header("accept", "application/x-ndjson")
            .header("authorization", format!("Bearer {key}"));
        let text = request.call().unwrap().body_mut().read_to_string().unwrap();
        let events = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let identities = events.map(|one| {
            let of = |name: &str| one["event"][name].as_str().unwrap_or_default().to_owned();
            (of("namespace"), of("authtype"), of("authid"))
        });
        identities.collect::<BTreeSet<_>>()
    };
    let begun = Instant::now();
    while visible_events(KEY_B).is_empty() || visible_events(KEY_A).is_empty() {
        assert!(begun.elapsed() < LIMIT, "no events");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Of each namespace what its user did there, and who that was.
    let by = |namespace: &str, user: &str| {
        let expected = [namespace, "user", user].map(str::to_owned);
        let [namespace, kind, user] = expected;
        BTreeSet::from([(namespace, kind, user)])
    };
    assert_eq!(visible_events(KEY_A), by("a", "ann"));
    assert_eq!(visible_events(KEY_B), by("b", "bob"));
}

#[test]
fn the_command_line_follows_a_run_in_the_callers_own_namespace() {
    let data = tempfile::tempdir().unwrap();
    let platform = platform(data.path());
    let file = data.path().join("one.json");
    let spec = shell_pipeline(
        "one",
        &[("t".to_owned(), "echo done".to_owned(), Vec::new())],
    );
    std::fs::write(&file, spec.to_string()).unwrap();
    let ran = std::process::Command::new(ferroflow_testkit::binary())
        .args(["run", "submit", "--wait"])
        .arg(&file)
        .env("FERROFLOW_ENDPOINT", platform.url())
        .env("FERROFLOW_API_KEY", KEY_A)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{stderr}");
}
