//! The Kubernetes runtime on a real cluster, against the contract of all runtimes.
//!
//! Commands share a folder with the test through a volume on the node's disk, so the cluster must be
//! this machine's, as the test bed's is.
#![cfg(feature = "pod")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::sync::Arc;

use ferroflow_artifacts::stores::{S3Config, Stores};
use ferroflow_launcher::{AttemptResult, Domain, FailureReason, Outcome, OwnerKey};
use ferroflow_runtime::contract::{Subject, all, kfp_of, outcome};
use ferroflow_runtime::{KubernetesConfig, KubernetesRuntime, Runtime};
use ferroflow_testkit::cluster::Cluster;
use ferroflow_types::Namespace;
use ferroflow_types::id::{IdSource as _, RandomIds};
use serde_json::{Value, json};

/// Where commands in pods leave their outputs.
const OUTPUTS: &str = "/ferroflow/attempt/outputs";

async fn subject(cluster: &Cluster, folder: std::path::PathBuf) -> Subject {
    let ids = RandomIds;
    let run = ids.uuid();
    let claim = format!("contract-{run}");
    cluster.share(&folder, &claim);
    let s3: S3Config = serde_json::from_value(cluster.s3()).unwrap();
    let config: KubernetesConfig = serde_json::from_value(cluster.kubernetes()).unwrap();
    let config = KubernetesConfig {
        root: format!("s3://ferroflow/contract/{run}"),
        endpoint: s3.endpoint.clone(),
        ..config
    };
    let image = cluster.task_image().to_owned();
    let client = kube::Client::try_default().await.unwrap();
    let stores = Stores::new(s3);
    Subject {
        reopen: Box::new(move || {
            let runtime = KubernetesRuntime::open(client.clone(), config.clone(), stores.clone());
            Arc::new(runtime.unwrap()) as Arc<dyn Runtime>
        }),
        folder,
        inside: "/shared".into(),
        artifacts: (
            format!("s3://ferroflow/contract/{run}/artifacts"),
            format!("/s3/ferroflow/contract/{run}/artifacts").into(),
        ),
        missing_hints: ["in the image", "use another image"],
        image,
        adapt: Box::new(move |spec| {
            let mount = json!([{"constant": claim, "mountPath": "/shared"}]);
            let kfp = kfp_of(spec, OUTPUTS.as_ref());
            kfp.platform.insert("pvcMount".to_owned(), mount);
        }),
        owner: OwnerKey {
            domain: Domain::PIPELINES,
            namespace: Namespace::single_user(),
            id: run,
        },
    }
}

fn reason(outcome: &Outcome) -> FailureReason {
    match &outcome.result {
        AttemptResult::Failed(failure) => failure.reason,
        AttemptResult::Succeeded(outputs) => panic!("it succeeded: {outputs:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubernetes_runtime_keeps_the_contract() {
    let cluster = match Cluster::open() {
        Ok(cluster) => cluster,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let data = tempfile::tempdir().unwrap();
    let subject = subject(&cluster, data.path().to_path_buf()).await;

    all(&subject).await;
    ends_are_distinguished(&cluster, &subject).await;
    (subject.reopen)().delete(&subject.owner).await.unwrap();
    let selector = format!("pipelines.ferroflow.ai/run={}", subject.owner.id);
    cluster.kubectl(&[
        "wait",
        "--for=delete",
        "pods",
        "-l",
        &selector,
        "--timeout=60s",
    ]);
}

/// What only a cluster can do to an attempt.
async fn ends_are_distinguished(cluster: &Cluster, subject: &Subject) {
    let runtime = (subject.reopen)();
    let mut spec = subject.spec(&*runtime, "memory", "tail /dev/zero");
    spec.resources
        .limits
        .insert("memory".to_owned(), "64Mi".to_owned());
    let ended = outcome(&*runtime, spec).await;
    assert_eq!(reason(&ended), FailureReason::OutOfMemory, "{ended:?}");

    let mut spec = subject.spec(&*runtime, "image", "true");
    spec.image = "gcr.io/my-image".to_owned();
    let ended = outcome(&*runtime, spec).await;
    assert_eq!(reason(&ended), FailureReason::ImagePull, "{ended:?}");

    let mut spec = subject.spec(&*runtime, "refused", "true");
    let bad: Value = json!({"labels": {"not a label!": "x"}});
    let kfp = kfp_of(&mut spec, OUTPUTS.as_ref());
    kfp.platform.insert("podMetadata".to_owned(), bad);
    let ended = outcome(&*runtime, spec).await;
    assert_eq!(reason(&ended), FailureReason::StartFailed, "{ended:?}");

    let spec = subject.spec(&*runtime, "deleted", "sleep 60");
    let key = spec.key.clone();
    runtime.ensure(spec).await.unwrap();
    let pod = format!("ff-{}-{}", key.item, key.attempt);
    cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod",
        &pod,
        "--timeout=60s",
    ]);
    cluster.kubectl(&["delete", "pod", &pod, "--wait=false"]);
    let ended = runtime.observe(&key).await.unwrap();
    assert!(reason(&ended).is_lost(), "{ended:?}");
}
