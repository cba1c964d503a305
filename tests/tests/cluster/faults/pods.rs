//! Pods that vanish, and a node that is taken out of service.

use std::time::Duration;

use ferroflow_testkit::parts::restart;
use ferroflow_testkit::scene::{LIMIT, Scene, eventually};
use serde_json::Value;

use super::STEPS;

/// A run of [`STEPS`] whose middle step was begun twice, because its place was lost.
fn succeeds_with_the_middle_step_begun_twice(
    scene: &Scene,
    platform: &ferroflow_testkit::Platform,
    run: &str,
) {
    let ended = platform.wait(run, LIMIT);
    assert_eq!(ended["state"], "SUCCEEDED", "{ended:#}");
    let times = STEPS.map(|step| scene.times_run(step));
    assert_eq!(times, [1, 2, 1], "one more attempt");
    scene.assert_transitions_published_once(platform, run);
}

#[test]
fn a_deleted_pod_is_another_attempt() {
    let Some(scene) = Scene::open("pod") else {
        return;
    };
    let platform = scene.platform();
    let run = scene.submit(&platform, &STEPS, 4);
    scene.wait_for_step("t1", 1);

    let selector = format!("pipelines.ferroflow.ai/run={run}");
    let delete = ["delete", "pods", "-l", &selector, "--now", "--wait=false"];
    scene.cluster().kubectl(&delete);

    succeeds_with_the_middle_step_begun_twice(&scene, &platform, &run);
}

/// The node takes pods again when this is dropped.
struct DrainedNode<'a>(&'a Scene, String);

impl Drop for DrainedNode<'_> {
    fn drop(&mut self) {
        // A second panic would hide the first; the test bed is mended afterwards as well.
        if let Err(error) = self.0.cluster().try_kubectl(&["uncordon", &self.1]) {
            println!("{error}");
        }
    }
}

/// Where a run's pod runs.
fn node_of(scene: &Scene, selector: &str) -> String {
    let node = ["get", "pods", "-l", selector, "-o"];
    let node = [&node[..], &["jsonpath={.items[0].spec.nodeName}"]].concat();
    scene.cluster().kubectl(&node)
}

fn pods_of(scene: &Scene, selector: &str) -> Vec<Value> {
    let pods = ["get", "pods", "-l", selector, "-o", "json"];
    let pods: Value = serde_json::from_str(&scene.cluster().kubectl(&pods)).unwrap();
    pods["items"].as_array().unwrap().clone()
}

#[test]
fn a_drained_node_costs_an_attempt_and_no_retry_of_the_users() {
    let Some(scene) = Scene::open("drain") else {
        return;
    };
    let platform = scene.platform();
    let run = scene.submit(&platform, &STEPS, 8);
    scene.wait_for_step("t1", 1);
    let selector = format!("pipelines.ferroflow.ai/run={run}");
    let node = node_of(&scene, &selector);

    // The API of evictions is what a drain uses; only this run's pods, for the node is everybody's.
    let drained = DrainedNode(&scene, node.clone());
    let only = format!("--pod-selector={selector}");
    let drain = [
        "drain",
        &node,
        "--force",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
    ];
    let drain = [&drain[..], &[&only, "--timeout=60s"]].concat();
    scene.cluster().kubectl(&drain);
    eventually(
        Duration::from_mins(1),
        "another attempt waits for a node",
        || {
            let pods = pods_of(&scene, &selector);
            pods.iter().any(|pod| pod["status"]["phase"] == "Pending")
        },
    );
    assert_eq!(scene.times_run("t1"), 1, "no node takes it");
    if let Err(reason) = restart("kubelet") {
        println!("kubelet goes on: {reason}");
    }
    drop(drained);

    succeeds_with_the_middle_step_begun_twice(&scene, &platform, &run);
    let why = scene.retries(&platform, &run);
    assert!(why.iter().all(|why| why.contains("told to end")), "{why:?}");
}
