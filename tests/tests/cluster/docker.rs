//! The platform over a real Docker engine: pipelines of the ecosystem, a server that is killed, an
//! engine that is killed.
//!
//! Of the ecosystem's pipelines the quick ones are run, those whose steps install nothing;
//! `FERROFLOW_TEST_WHOLE` asks for all.

use std::path::Path;
use std::time::Duration;

use ferroflow_testkit::cluster::{Cluster, unique};
use ferroflow_testkit::conformance::{cases, count, run_all, table};
use ferroflow_testkit::docker::Engine;
use ferroflow_testkit::parts::restart;
use ferroflow_testkit::scene::eventually;
use ferroflow_testkit::{Platform, conformance_dir, shell_pipeline};
use serde_json::{Value, json};

/// Rows that run at once.
const WORKERS: usize = 4;
const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn compiled_pipelines_of_the_ecosystem_end_as_they_must_in_containers() {
    let (engine, folder) = match (Engine::open(), conformance_dir()) {
        (Ok(engine), Ok(folder)) => (engine, folder),
        (Err(reason), _) | (_, Err(reason)) => return println!("skipped: {reason}"),
    };
    let whole = std::env::var_os("FERROFLOW_TEST_WHOLE").is_some();
    let mut cases = cases(&folder);
    cases.retain(|case| ["a", "b"].contains(&case.class.as_str()));
    cases.retain(|case| {
        let text = std::fs::read_to_string(folder.join(&case.path)).unwrap();
        whole || !text.contains("pip install")
    });
    if let Ok(only) = std::env::var("FERROFLOW_TEST_ONLY") {
        cases.retain(|case| case.path.contains(&only));
    }
    let data = tempfile::tempdir().unwrap();
    let more = json!({"pipelines": {"parallel_tasks": 8}});
    let settings = engine.settings(data.path(), &more);
    let platform = Platform::start(data.path(), &["--config", &settings]);

    let rows = run_all(&platform, &folder, &cases, WORKERS);

    let text = format!(
        "every image is {} unless its row is about a missing one\n\n{}",
        engine.task_image(),
        table(&rows)
    );
    println!("{text}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("docker-conformance.md");
    std::fs::write(target, &text).unwrap();
    let ((good, all), b) = (count(&rows, "a"), count(&rows, "b"));
    println!("as expected in containers: class a {good} of {all}, b {b:?}");
    assert!(
        good * 10 >= all * 9,
        "{good} of {all} class a rows end as expected"
    );
}

/// A platform whose steps leave lines in a folder that the test sees.
struct Scene {
    data: tempfile::TempDir,
    settings: String,
}

impl Scene {
    fn open() -> Option<Self> {
        let engine = match Engine::open() {
            Ok(engine) => engine,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let data = tempfile::tempdir().unwrap();
        let settings = engine.settings(data.path(), &json!({}));
        Some(Self { data, settings })
    }

    fn platform(&self) -> Platform {
        Platform::start(self.data.path(), &["--config", &self.settings])
    }

    fn file(&self, step: &str) -> String {
        self.data
            .path()
            .join("shared")
            .join(step)
            .display()
            .to_string()
    }

    /// Two steps, one after the other; each leaves a line and takes a while.
    fn submit(&self, platform: &Platform, seconds: u32) -> String {
        let step = |name: &str, upstream: &[&str]| {
            let script = format!("echo ran >> '{}'; sleep {seconds}", self.file(name));
            let upstream = upstream.iter().map(ToString::to_string).collect();
            (name.to_owned(), script, upstream)
        };
        let pipeline = shell_pipeline("docker", &[step("one", &[]), step("two", &["one"])]);
        platform.submit("docker", &pipeline, &json!({}))
    }

    fn lines(&self, step: &str) -> usize {
        let text = std::fs::read_to_string(self.file(step)).unwrap_or_default();
        text.lines().count()
    }

    fn wait_for(&self, step: &str) {
        eventually(LIMIT, &format!("step {step} has begun"), || {
            self.lines(step) > 0
        });
    }
}

fn tasks(platform: &Platform, run: &str) -> Value {
    let (status, tasks) = platform.get(&format!("/apis/ferroflow/v1/runs/{run}/tasks"));
    assert_eq!(status, 200, "{tasks}");
    tasks
}

#[test]
fn a_server_that_is_killed_finds_its_containers_again() {
    let Some(scene) = Scene::open() else { return };
    let mut platform = scene.platform();
    let run = scene.submit(&platform, 3);
    for step in ["one", "two"] {
        scene.wait_for(step);
        platform.kill();
        platform = scene.platform();
    }

    let ended = platform.wait(&run, LIMIT);

    assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
    for step in ["one", "two"] {
        assert_eq!(scene.lines(step), 1, "step {step}");
    }
}

#[test]
fn a_run_outlives_its_engine() {
    let Some(scene) = Scene::open() else { return };
    let platform = scene.platform();
    let run = scene.submit(&platform, 5);
    scene.wait_for("one");
    if let Err(reason) = restart("docker") {
        return println!("skipped: {reason}");
    }

    let ended = platform.wait(&run, LIMIT);

    assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
    // The attempt that the engine took with it may have been followed by another one.
    assert!(
        (1..=2).contains(&scene.lines("one")),
        "{:#}",
        tasks(&platform, &run)
    );
    assert_eq!(scene.lines("two"), 1);
}

#[test]
fn a_run_may_say_in_which_bucket_its_artifacts_go() {
    let (Some(scene), Ok(store)) = (Scene::open(), std::env::var("FERROFLOW_TEST_S3")) else {
        return println!("skipped: there is no engine, or FERROFLOW_TEST_S3 is not set");
    };
    let store = Cluster::s3_of(&store).unwrap();
    let more = json!({"artifacts": {"s3": store}});
    let settings = Engine::open().unwrap().settings(scene.data.path(), &more);
    let platform = Platform::start(scene.data.path(), &["--config", &settings]);
    let kind = json!({"artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}});
    let mut spec = shell_pipeline("root", &[("t".to_owned(), String::new(), Vec::new())]);
    spec["components"]["comp-t"]["outputDefinitions"] = json!({"artifacts": {"model": kind}});
    spec["deploymentSpec"]["executors"]["exec-t"]["container"]["command"] = json!([
        "sh",
        "-c",
        "echo 42 > \"$0\"",
        "{{$.outputs.artifacts['model'].path}}"
    ]);
    let create = |root: &str| {
        let config = json!({"pipeline_root": root});
        let run = json!({"display_name": "r", "pipeline_spec": spec, "runtime_config": config});
        platform.post("/apis/v2beta1/runs", &run)
    };

    for root in ["gs://bucket/x", "s3://", "relative"] {
        let (status, refused) = create(root);
        assert_eq!(status, 400, "{refused}");
        let message = refused.to_string();
        assert!(message.contains("s3:// or minio:// URI"), "{message}");
    }
    let root = format!("s3://ferroflow/roots/{}", unique(scene.data.path()));
    let (status, made) = create(&root);
    assert_eq!(status, 200, "{made}");
    let run = made["run_id"].as_str().unwrap();
    let ended = platform.wait(run, LIMIT);
    assert_eq!(ended["state"], "SUCCEEDED", "{ended}");
    let run_tasks = tasks(&platform, run);
    let id = &run_tasks["tasks"][1]["output_artifacts"]["model"]["ids"][0];
    let place = format!("/apis/ferroflow/v1/artifacts/{}", id.as_str().unwrap());
    let (_, model) = platform.get(&place);
    assert!(model["uri"].as_str().unwrap().starts_with(&root), "{model}");
    let content = platform.text(&format!("{place}/content"), "*/*");
    assert_eq!(content, "42\n");
}
