//! Warm pods on a real cluster: who gets one, and that it keeps what a pod of its own keeps.
#![cfg(feature = "pod")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::time::Duration;

use ferroflow_artifacts::stores::{S3Config, Stores};
use ferroflow_launcher::kfp::{Kfp, OutputParameter, OutputSpec, ParameterKind};
use ferroflow_launcher::{
    AttemptKey, AttemptResult, AttemptSpec, Domain, FailureReason, Outcome, Outputs, OwnerKey,
};
use ferroflow_runtime::kubernetes::WarmConfig;
use ferroflow_runtime::{KubernetesConfig, KubernetesRuntime, Runtime};
use ferroflow_testkit::cluster::Cluster;
use ferroflow_types::id::{IdSource as _, RandomIds};
use ferroflow_types::{Namespace, RunId, TaskId};

const OUTCOME_TIMEOUT: Duration = Duration::from_mins(1);

struct Scene {
    cluster: Cluster,
    run: RunId,
}

impl Scene {
    /// A runtime as a server has it; another one over the same data is a server that came back.
    async fn runtime(&self, warm: usize) -> KubernetesRuntime {
        let s3: S3Config = serde_json::from_value(self.cluster.s3()).unwrap();
        let config: KubernetesConfig = serde_json::from_value(self.cluster.kubernetes()).unwrap();
        let config = KubernetesConfig {
            root: format!("s3://ferroflow/warm/{}", self.run),
            endpoint: s3.endpoint.clone(),
            warm: WarmConfig {
                size: warm,
                ..WarmConfig::default()
            },
            ..config
        };
        let client = kube::Client::try_default().await.unwrap();
        KubernetesRuntime::open(client, config, Stores::new(s3)).unwrap()
    }

    fn owner(&self) -> OwnerKey {
        OwnerKey {
            domain: Domain::PIPELINES,
            namespace: Namespace::single_user(),
            id: self.run.uuid(),
        }
    }

    fn spec(&self, runtime: &dyn Runtime, name: &str, script: &str) -> AttemptSpec {
        let key = AttemptKey {
            owner: self.owner(),
            item: TaskId::derive(self.run, name).uuid(),
            attempt: 1,
        };
        let layout = runtime.layout(&key);
        let path = layout.outputs_dir.join("said");
        AttemptSpec {
            name: name.to_owned(),
            image: self.cluster.task_image().to_owned(),
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![
                ("WORD".to_owned(), name.to_owned()),
                ("SAID".to_owned(), path.display().to_string()),
            ],
            kfp: Some(Kfp {
                outputs: OutputSpec {
                    parameters: vec![OutputParameter {
                        name: "said".to_owned(),
                        kind: ParameterKind::String,
                        path,
                    }],
                    ..OutputSpec::new(&layout.outputs_dir)
                },
                platform: serde_json::Map::new(),
                arguments: serde_json::Map::new(),
            }),
            ..AttemptSpec::new(key, layout.working_dir)
        }
    }

    /// The names of pods that match, once there are some and each is ready.
    async fn ready(&self, selector: &str) -> Vec<String> {
        let columns = "jsonpath={range .items[*]}{.metadata.name} \
                       {.status.containerStatuses[0].ready}{\"\\n\"}{end}";
        for _ in 0..600 {
            let output = self
                .cluster
                .kubectl(&["get", "pods", "-l", selector, "-o", columns]);
            let pods: Vec<_> = output
                .lines()
                .filter_map(|line| line.split_once(' '))
                .collect();
            if !pods.is_empty() && pods.iter().all(|(_, ready)| *ready == "true") {
                return pods.into_iter().map(|(name, _)| name.to_owned()).collect();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no pod of {selector} is ready");
    }
}

async fn outcome(runtime: &dyn Runtime, spec: AttemptSpec) -> Outcome {
    let key = spec.key.clone();
    runtime.ensure(spec).await.unwrap();
    observe(runtime, &key).await
}

async fn observe(runtime: &dyn Runtime, key: &AttemptKey) -> Outcome {
    let ended = tokio::time::timeout(OUTCOME_TIMEOUT, runtime.observe(key)).await;
    ended.expect("it ends").unwrap()
}

fn outputs(outcome: Outcome) -> Outputs {
    match outcome.result {
        AttemptResult::Succeeded(outputs) => outputs,
        AttemptResult::Failed(failure) => panic!("it failed: {failure:?}"),
    }
}

const WAITING: &str = "pipelines.ferroflow.ai/warm,!pipelines.ferroflow.ai/run";
const SCRIPT: &str = "printf '%s %s' \"$KFP_POD_NAME\" \"$WORD-$KFP_RETRY_INDEX\" > \"$SAID\"; \
                      test ! -e /tmp/left; touch /tmp/left";

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_pod_takes_one_step_and_no_other() {
    let cluster = match Cluster::open() {
        Ok(cluster) if cluster.kubernetes()["report_listen"] != "" => cluster,
        Ok(_) => return println!("skipped: FERROFLOW_TEST_ADDRESS is not set"),
        Err(reason) => return println!("skipped: {reason}"),
    };
    let run = RunId::new(RandomIds.uuid());
    let scene = Scene { cluster, run };
    let runtime = scene.runtime(1).await;

    // Nobody waits for the first one; it says what is to be kept warm.
    let printed = |outputs: Outputs| outputs.parameters["said"].as_str().unwrap().to_owned();
    let first = printed(outputs(
        outcome(&runtime, scene.spec(&runtime, "a", SCRIPT)).await,
    ));
    assert!(!first.starts_with("ff-warm"), "{first}");

    let mut before = first;
    for word in ["b", "c"] {
        scene.ready(WAITING).await;
        // A pod is ready a moment before its launcher has asked.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let next = printed(outputs(
            outcome(&runtime, scene.spec(&runtime, word, SCRIPT)).await,
        ));
        assert!(next.starts_with("ff-warm"), "{next}");
        assert!(next.ends_with(&format!(" {word}-0")), "{next}");
        assert_ne!(next, before);
        before = next;
    }

    scene.ready(WAITING).await;
    a_server_that_comes_back_finds_what_a_warm_pod_does(&scene, runtime).await;
}

async fn a_server_that_comes_back_finds_what_a_warm_pod_does(
    scene: &Scene,
    runtime: KubernetesRuntime,
) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let long = scene.spec(&runtime, "long", "sleep 3; printf done > \"$SAID\"");
    let key = long.key.clone();
    runtime.ensure(long.clone()).await.unwrap();
    let task = format!("pipelines.ferroflow.ai/task={}", key.item);
    let pods = scene.ready(&task).await;
    assert!(pods[0].starts_with("ff-warm"), "{pods:?}");
    drop(runtime);

    let runtime = scene.runtime(0).await;
    runtime.ensure(long).await.unwrap();
    let found = outputs(observe(&runtime, &key).await);
    assert_eq!(found.parameters["said"], "done");

    // Those that waited for the old server end, since the new one does not know them.
    let stopped = scene.spec(&runtime, "stopped", "sleep 60");
    let key = stopped.key.clone();
    runtime.ensure(stopped).await.unwrap();
    runtime.stop(&key).await.unwrap();
    match observe(&runtime, &key).await.result {
        AttemptResult::Failed(failure) => assert_eq!(failure.reason, FailureReason::Canceled),
        AttemptResult::Succeeded(outputs) => panic!("it was stopped: {outputs:?}"),
    }
    runtime.delete(&scene.owner()).await.unwrap();
}
