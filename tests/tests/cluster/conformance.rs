//! The ecosystem's own compiled pipelines on a real cluster: rows that local processes run, and those
//! that need containers or Kubernetes.
//!
//! A slice with each feature once by default; `FERROFLOW_TEST_FULL=1` for every row,
//! `FERROFLOW_TEST_ONLY=part-of-a-path,another` for some. Images that cannot be had are replaced by
//! one that is in the cluster, and the row says so.

use std::path::Path;

use ferroflow_testkit::cluster::{Cluster, unique};
use ferroflow_testkit::conformance::{Adapted, Case, cases, count, run_all, table};
use ferroflow_testkit::{Platform, conformance_dir};
use serde_json::json;

/// Rows that run at once: most of a row is waiting for a pod, or for pip in it.
const WORKERS: usize = 8;

/// Each feature once.
const SLICE: [&str; 40] = [
    "argo_compatibility/fast_artifact.yaml",
    "valid/arguments_parameters.yaml",
    "valid/artifacts_simple.yaml",
    "valid/collected_artifacts.yaml",
    "valid/component_with_task_final_status_GH-12033.yaml",
    "valid/container_with_artifact_output.yaml",
    "valid/critical/add_numbers.yaml",
    "valid/critical/artifact_cache.yaml",
    "valid/critical/collected_parameters.yaml",
    "valid/critical/component_with_optional_inputs.yaml",
    "valid/critical/container_component_with_no_inputs.yaml",
    "valid/critical/flip_coin.yaml",
    "valid/critical/if_else_with_oneof_artifacts.yaml",
    "valid/critical/missing_kubernetes_optional_inputs.yaml",
    "valid/critical/modelcar.yaml",
    "valid/critical/pipeline_with_env.yaml",
    "valid/critical/pipeline_with_importer_workspace.yaml",
    "valid/critical/pipeline_with_placeholders.yaml",
    "valid/critical/pipeline_with_pod_metadata.yaml",
    "valid/critical/pipeline_with_retry.yaml",
    "valid/critical/pipeline_with_secret_as_env.yaml",
    "valid/critical/pipeline_with_workspace.yaml",
    "valid/essential/pipeline_with_metrics_outputs.yaml",
    "valid/failing/pipeline_with_exit_handler.yaml",
    "valid/gpu-scheduling/nvidia_gpu_scheduling_check.yaml",
    "valid/local_execution/local_execution_pipeline_with_retry.yaml",
    "valid/mounted_cabundle_configmap.yaml",
    "valid/parallel_and_nested/parallel_for_mount_pvc.yaml",
    "valid/parallel_and_nested/parallel_for_secret.yaml",
    "valid/parallel_and_nested/pipeline_in_pipeline_complex.yaml",
    "valid/pipeline_with_concat_placeholder.yaml",
    "valid/pipeline_with_dynamic_importer_metadata.yaml",
    "valid/pipeline_with_parallelfor_parallelism.yaml",
    "valid/pipeline_with_secret_as_volume.yaml",
    "valid/pipeline_with_string_machine_fields_pipeline_input.yaml",
    "valid/pipeline_with_task_using_ignore_upstream_failure.yaml",
    "valid/pipeline_with_volume.yaml",
    "valid/pvc_mount.yaml",
    "valid/pythonic_artifacts_with_multiple_returns.yaml",
    "valid/run_as_user_cache_enabled.yaml",
];

/// Rows that cannot end as the table says here, with the reason; they run all the same.
const KNOWN: [(&str, &str); 2] = [
    (
        "valid/create_pod_metadata_complex.yaml",
        "asserts that a variable that nothing sets is the empty text",
    ),
    (
        "valid/integration/ray_integration_compiled.yaml",
        "needs the operator of Ray",
    ),
];

/// An SDK that has what these pipelines use; the one that compiled them did not yet.
const NEWER_SDK: &str = "2.17.3";

/// Gives rows what they need and a cluster does not have of itself; `claim` is of a folder that
/// pods share.
fn adapt(case: &mut Case, claim: &str) {
    let mut adapted = Adapted::default();
    let remark = match case.path.as_str() {
        "valid/artifacts_simple.yaml" => {
            adapted.claim = Some(claim.to_owned());
            "/shared/artifacts".clone_into(&mut adapted.root);
            "opens the URIs of artifacts as paths: the root is on a shared volume".to_owned()
        }
        "valid/local_execution/local_execution_pipeline_with_retry.yaml" => {
            adapted.claim = Some(claim.to_owned());
            case.parameters = json!({"counter_path": "/shared/counter"});
            "counts attempts in a file: it is on a shared volume, /tmp is each pod's own".to_owned()
        }
        "valid/pipeline_with_string_machine_fields_pipeline_input.yaml" => {
            case.parameters = json!({"cpu_limit": "500m"});
            "asks for 4 CPUs by default: cpu_limit is 500m, nodes may have less".to_owned()
        }
        "valid/critical/pipeline_with_artifact_custom_path.yaml"
        | "valid/essential/embedded_artifact.yaml" => {
            adapted.sdk = Some(NEWER_SDK.to_owned());
            format!("its SDK lacks what it uses: steps have {NEWER_SDK}")
        }
        _ => return,
    };
    case.adapted = Some(Adapted { remark, ..adapted });
}

/// The rows that were asked for.
fn chosen(folder: &Path) -> Vec<Case> {
    let mut cases = cases(folder);
    cases.retain(|case| ["a", "b", "c"].contains(&case.class.as_str()));
    if let Ok(only) = std::env::var("FERROFLOW_TEST_ONLY") {
        let only: Vec<&str> = only.split(',').collect();
        cases.retain(|case| only.iter().any(|part| case.path.contains(part)));
    } else if std::env::var_os("FERROFLOW_TEST_FULL").is_none() {
        cases.retain(|case| SLICE.contains(&case.path.as_str()));
    }
    cases
}

#[test]
fn compiled_pipelines_of_the_ecosystem_end_as_they_must_on_a_cluster() {
    let (cluster, folder) = match (Cluster::open(), conformance_dir()) {
        (Ok(cluster), Ok(folder)) => (cluster, folder),
        (Err(reason), _) | (_, Err(reason)) => return println!("skipped: {reason}"),
    };
    let data = tempfile::tempdir().unwrap();
    let claim = format!("conformance-{}", unique(data.path()));
    cluster.share(&data.path().join("shared"), &claim);
    let mut cases = chosen(&folder);
    for case in &mut cases {
        adapt(case, &claim);
    }
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "my-pvc", "namespace": ferroflow_testkit::cluster::NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }));
    let more = json!({"pipelines": {"parallel_tasks": 24}});
    let settings = cluster.settings(data.path(), &more);
    let platform = Platform::start(data.path(), &["--config", &settings]);

    let mut rows = run_all(&platform, &folder, &cases, WORKERS);

    for row in &mut rows {
        let file = std::fs::read_to_string(folder.join(&row.case.path)).unwrap();
        row.remarks.extend(cluster.mapped_images(&file));
        let known = KNOWN.iter().find(|(path, _)| *path == row.case.path);
        row.remarks.extend(
            known
                .filter(|_| !row.is_good())
                .map(|(_, why)| format!("known: {why}")),
        );
    }
    let text = table(&rows);
    println!("{text}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("cluster-conformance.md");
    std::fs::write(target, &text).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|class| count(&rows, class));
    println!("as expected: class a {a:?}, b {b:?}, c {c:?}");
    let surprises: Vec<_> = rows
        .iter()
        .filter(|row| !row.is_good() && KNOWN.iter().all(|(path, _)| *path != row.case.path))
        .map(|row| format!("{}: {}", row.case.path, row.got))
        .collect();
    assert!(surprises.is_empty(), "{surprises:#?}");
}
