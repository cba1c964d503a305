//! Faults on real parts: a cluster, an object store, PostgreSQL where `DATABASE_URL` names one.
//!
//! Steps leave a line each on a shared volume, so a step that ran twice is seen.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use ferroflow_testkit::cluster::{Cluster, database, restart};
use ferroflow_testkit::{Platform, shell_pipeline};
use serde_json::{Value, json};

const TASKS: usize = 3;
const LIMIT: Duration = Duration::from_mins(3);

/// A platform on the cluster, and a folder that its steps share with the test.
struct Scene {
    cluster: Cluster,
    data: tempfile::TempDir,
    settings: String,
    claim: String,
}

impl Scene {
    fn open(name: &str) -> Option<Self> {
        let cluster = match Cluster::open() {
            Ok(cluster) => cluster,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let data = tempfile::tempdir().unwrap();
        let unique = data.path().file_name().unwrap().to_string_lossy();
        let unique = unique.trim_start_matches('.').to_lowercase();
        let claim = format!("faults-{name}-{unique}");
        let shared = data.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        cluster.share(&shared, &claim);
        let more = json!({
            "pipelines": {"database": database(&format!("pipelines_{name}_{unique}"))},
            "events": {"database": database(&format!("events_{name}_{unique}"))},
        });
        let settings = cluster.settings(data.path(), &more).display().to_string();
        Some(Self {
            cluster,
            data,
            settings,
            claim,
        })
    }

    fn platform(&self) -> Platform {
        Platform::start(self.data.path(), &["--config", &self.settings])
    }

    /// A chain of steps; each says that it ran, then takes a while.
    fn submit(&self, platform: &Platform) -> String {
        let tasks: Vec<_> = (0..TASKS)
            .map(|at| {
                let upstream = (at > 0).then(|| format!("t{}", at - 1));
                let script = format!("echo ran >> /shared/t{at}; sleep 4");
                (format!("t{at}"), script, upstream.into_iter().collect())
            })
            .collect();
        let mount = json!({"pvcMount": [{"constant": self.claim, "mountPath": "/shared"}]});
        let executors: BTreeMap<_, _> = (0..TASKS)
            .map(|at| (format!("exec-t{at}"), mount.clone()))
            .collect();
        let platforms =
            json!({"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}});
        let both = json!({
            "pipeline_spec": shell_pipeline("faults", &tasks),
            "platform_spec": platforms,
        });
        platform.submit("faults", &both, &json!({}))
    }

    fn effect(&self, task: usize) -> String {
        let file = self.data.path().join(format!("shared/t{task}"));
        std::fs::read_to_string(file).unwrap_or_default()
    }

    /// Waits until a step has begun.
    fn wait_for_effect(&self, task: usize) {
        for _ in 0..600 {
            if !self.effect(task).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("step {task} has not begun");
    }

    fn succeeds_with_every_step_run_once(&self, platform: &Platform, run: &str) {
        let ended = platform.wait(run, LIMIT);
        assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
        for task in 0..TASKS {
            assert_eq!(self.effect(task), "ran\n", "step {task}");
        }
        let text = platform.text(
            &format!(
                "/apis/ferroflow/v1/events?follow=false&subject_prefix=namespaces/default/runs/{run}"
            ),
            "application/x-ndjson",
        );
        let mut seen = BTreeMap::new();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let of = |name: &str| event["event"]["data"][name].to_string();
            let key = (
                event["event"]["type"].to_string(),
                of("path"),
                of("attempt"),
            );
            *seen.entry(key).or_insert(0) += 1;
        }
        let twice: Vec<_> = seen.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "{twice:#?}");
    }
}

#[test]
fn a_service_that_is_killed_in_every_phase_loses_nothing() {
    let Some(scene) = Scene::open("kill") else {
        return;
    };
    let mut platform = scene.platform();
    let run = scene.submit(&platform);

    for kill in 0..12 {
        std::thread::sleep(Duration::from_millis(900 + 137 * kill % 700));
        platform.kill();
        platform = scene.platform();
    }

    scene.succeeds_with_every_step_run_once(&platform, &run);
}

#[test]
fn a_deleted_pod_is_another_attempt() {
    let Some(scene) = Scene::open("pod") else {
        return;
    };
    let platform = scene.platform();
    let run = scene.submit(&platform);
    scene.wait_for_effect(1);

    let selector = format!("pipelines.ferroflow.ai/run={run}");
    scene
        .cluster
        .kubectl(&["delete", "pods", "-l", &selector, "--now", "--wait=false"]);

    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
    assert_eq!(scene.effect(0), "ran\n");
    assert_eq!(scene.effect(1), "ran\nran\n", "one more attempt");
    assert_eq!(scene.effect(2), "ran\n");
}

/// Kills and restarts one of the test bed's processes while a step runs.
fn restarted_while_a_step_runs(process: &str) {
    let Some(scene) = Scene::open(&process.replace('-', "")) else {
        return;
    };
    let platform = scene.platform();
    let run = scene.submit(&platform);
    scene.wait_for_effect(0);

    if let Err(reason) = restart(process) {
        return println!("skipped: {reason}");
    }

    scene.succeeds_with_every_step_run_once(&platform, &run);
}

/// One after the other: they are faults of everybody's parts.
#[test]
fn restarted_parts_cost_nothing() {
    for process in ["kube-apiserver", "kubelet", "minio", "postgres"] {
        println!("restarting {process}");
        restarted_while_a_step_runs(process);
    }
}
