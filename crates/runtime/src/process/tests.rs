//! What is prepared for a process in the background. One thread, so that it goes on only where a test
//! waits.

use std::path::Path;

use ferroflow_artifacts::stores::S3Config;
use ferroflow_launcher::{AttemptResult, AttemptSpec, InputArtifact};
use ferroflow_python_env::PythonConfig;

use super::*;
use crate::tests::{key, key_of};

fn runtime(data: &Path) -> ProcessRuntime {
    runtime_with_stores(data, Stores::default())
}

fn runtime_with_stores(data: &Path, stores: Stores) -> ProcessRuntime {
    let python = PythonConfig::new(data.join("envs"), "python3".to_owned(), std::iter::empty());
    let config = ProcessConfig {
        data_dir: data.to_path_buf(),
        launcher: vec!["false".into()],
        path: String::new(),
        inputs: InputAccess::Copied,
        artifacts: None,
    };
    ProcessRuntime::new(config, PythonEnvs::new(python), stores)
}

/// An attempt that brings a file of `data` to the folder that its owner's attempts share, and the
/// place of the copy.
fn fetch_attempt(runtime: &ProcessRuntime, data: &Path, key: AttemptKey) -> (AttemptSpec, PathBuf) {
    let from = data.join("model");
    std::fs::write(&from, "weights").unwrap();
    let folder = runtime.workspace(&key.owner).path;
    let to = folder.join("model");
    let input = InputArtifact {
        uri: from.display().to_string(),
        path: to.clone(),
        digest: None,
        stamp: None,
    };
    let work = runtime.layout(&key).working_dir;
    let spec = AttemptSpec {
        fetch_into: Some(folder),
        inputs: vec![input],
        ..AttemptSpec::new(key, work)
    };
    (spec, to)
}

fn has_succeeded(outcome: &Outcome) -> bool {
    matches!(outcome.result, AttemptResult::Succeeded(_))
}

#[tokio::test]
async fn ensure_does_not_wait_for_content_that_is_copied() {
    let data = tempfile::tempdir().unwrap();
    let runtime = runtime(data.path());
    let (spec, copy) = fetch_attempt(&runtime, data.path(), key("brings", 1));

    runtime.ensure(spec.clone()).await.unwrap();
    runtime.ensure(spec.clone()).await.unwrap();
    assert!(!copy.exists(), "it was copied before ensure returned");

    assert!(has_succeeded(&runtime.observe(&spec.key).await.unwrap()));
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "weights");
    // Done is done: neither asking again nor the runtime after this one copies again.
    std::fs::remove_file(&copy).unwrap();
    for runtime in [&runtime, &self::runtime(data.path())] {
        runtime.ensure(spec.clone()).await.unwrap();
        assert!(has_succeeded(&runtime.observe(&spec.key).await.unwrap()));
    }
    assert!(!copy.exists());
}

#[tokio::test]
async fn what_ended_with_its_server_is_begun_anew_by_the_next() {
    let data = tempfile::tempdir().unwrap();
    let first = runtime(data.path());
    let (spec, copy) = fetch_attempt(&first, data.path(), key("brings", 1));
    first.ensure(spec.clone()).await.unwrap();
    drop(first);

    let second = runtime(data.path());
    tokio::task::yield_now().await;
    assert!(!copy.exists());
    second.ensure(spec.clone()).await.unwrap();

    assert!(has_succeeded(&second.observe(&spec.key).await.unwrap()));
    assert!(copy.exists());
}

#[tokio::test]
async fn one_that_is_stopped_while_it_is_prepared_is_canceled() {
    let data = tempfile::tempdir().unwrap();
    // A store that takes requests and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let stores = Stores::new(S3Config {
        endpoint: Some(endpoint),
        access_key_id: Some("key".to_owned().into()),
        secret_access_key: Some("secret".to_owned().into()),
        ..S3Config::default()
    });
    let runtime = runtime_with_stores(data.path(), stores);
    let (mut spec, _) = fetch_attempt(&runtime, data.path(), key("brings", 1));
    "s3://bucket/model".clone_into(&mut spec.inputs[0].uri);
    runtime.ensure(spec.clone()).await.unwrap();

    runtime.stop(&spec.key).await.unwrap();
    let outcome = runtime.observe(&spec.key).await.unwrap();

    let AttemptResult::Failed(failure) = outcome.result else {
        panic!("{outcome:?}");
    };
    assert_eq!(failure.reason, FailureReason::Canceled, "{failure:?}");
}

#[tokio::test]
async fn two_domains_with_the_same_ids_do_not_meet() {
    let data = tempfile::tempdir().unwrap();
    let runtime = runtime(data.path());
    let keys = ["pipelines", "tuning"].map(|domain| key_of(domain, "brings", 1));
    let [(task, of_task), (trial, of_trial)] =
        keys.map(|key| fetch_attempt(&runtime, data.path(), key));
    for spec in [&task, &trial] {
        runtime.ensure(spec.clone()).await.unwrap();
        assert!(has_succeeded(&runtime.observe(&spec.key).await.unwrap()));
    }
    assert_ne!(of_task, of_trial);

    runtime.delete(&task.key.owner).await.unwrap();

    assert!(!of_task.exists() && of_trial.exists());
    assert!(matches!(
        runtime.observe(&task.key).await,
        Err(RuntimeError::Unknown(_))
    ));
    assert!(has_succeeded(&runtime.observe(&trial.key).await.unwrap()));
}
