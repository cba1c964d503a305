//! The ecosystem's own compiled pipelines on a real cluster: every row that local processes run, and
//! those that need containers or Kubernetes.
//!
//! Images that cannot be had are replaced by one that is in the cluster; the table says by which.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::path::Path;

use ferroflow_testkit::cluster::Cluster;
use ferroflow_testkit::conformance::{cases, count, run_all, table};
use ferroflow_testkit::{Platform, conformance_dir};
use serde_json::json;

/// Rows that run at once.
const WORKERS: usize = 6;

#[test]
fn compiled_pipelines_of_the_ecosystem_end_as_they_must_on_a_cluster() {
    let (cluster, folder) = match (Cluster::open(), conformance_dir()) {
        (Ok(cluster), Ok(folder)) => (cluster, folder),
        (Err(reason), _) | (_, Err(reason)) => return println!("skipped: {reason}"),
    };
    let mut cases = cases(&folder);
    cases.retain(|case| ["a", "b", "c"].contains(&case.class.as_str()));
    if let Ok(only) = std::env::var("FERROFLOW_TEST_ONLY") {
        cases.retain(|case| case.path.contains(&only));
    }
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "my-pvc", "namespace": ferroflow_testkit::cluster::NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }));
    let data = tempfile::tempdir().unwrap();
    let more = json!({"pipelines": {"parallel_tasks": 24}});
    let settings = cluster.settings(data.path(), &more);
    let platform = Platform::start(data.path(), &["--config", &settings.display().to_string()]);

    let rows = run_all(&platform, &folder, &cases, WORKERS);

    let text = format!(
        "every image is {} unless its row is about a missing one\n\n{}",
        cluster.task_image(),
        table(&rows)
    );
    println!("{text}");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cluster-conformance.md");
    std::fs::write(target, &text).unwrap();
    let (good, all) = count(&rows, "a");
    let (b, c) = (count(&rows, "b"), count(&rows, "c"));
    println!("as expected: class a {good} of {all}, b {b:?}, c {c:?}");
    assert!(
        good * 10 >= all * 9,
        "{good} of {all} class a rows end as expected"
    );
}
