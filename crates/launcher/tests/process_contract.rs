//! The process runtime with the real launcher, against the contract of all runtimes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::sync::Arc;

use ferroflow_artifacts::stores::Stores;
use ferroflow_launcher::AttemptResult;
use ferroflow_python_env::{PythonConfig, PythonEnvs};
use ferroflow_runtime::contract::{Subject, all, outcome};
use ferroflow_runtime::{ProcessConfig, ProcessRuntime};
use ferroflow_types::RunId;

#[tokio::test(flavor = "multi_thread")]
async fn the_process_runtime_keeps_the_contract() {
    let data = tempfile::tempdir().unwrap();
    let root = data.path().to_path_buf();
    let reopen = move || {
        let python = PythonConfig::new(root.join("envs"), "python3".to_owned(), std::env::vars());
        let config = ProcessConfig {
            data_dir: root.clone(),
            launcher: vec![env!("CARGO_BIN_EXE_ferroflow-launcher").into()],
            path: std::env::var("PATH").unwrap(),
        };
        let runtime = ProcessRuntime::new(config, PythonEnvs::new(python), Stores::default());
        Arc::new(runtime) as Arc<dyn ferroflow_runtime::Runtime>
    };
    let folder = data.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let run = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
        .parse::<RunId>()
        .unwrap();

    let subject = Subject {
        reopen: Box::new(reopen),
        inside: folder.clone(),
        artifacts: (folder.display().to_string(), folder.clone()),
        missing: ["busybox", "--runtime docker"],
        image: "busybox".to_owned(),
        adapt: Box::new(|_| {}),
        folder,
        run,
    };
    all(&subject).await;
    limits_hold(&subject).await;
}

/// Limits as local processes keep them: whole cores, memory that a program allocates.
async fn limits_hold(subject: &Subject) {
    let runtime = (subject.reopen)();
    let script = "[ \"$(nproc)\" = 1 ] || { echo \"$(nproc) cores\"; exit 3; }";
    let mut spec = subject.spec(&*runtime, "cores", script);
    spec.limits.cpu_millis = Some(500);
    let ended = outcome(&*runtime, spec).await;
    assert!(
        matches!(ended.result, AttemptResult::Succeeded(_)),
        "{ended:?}"
    );

    let mut spec = subject.spec(&*runtime, "memory", "");
    spec.argv = ["python3", "-c", "bytes(200_000_000)"]
        .map(str::to_owned)
        .to_vec();
    spec.limits.memory_bytes = Some(100_000_000);
    let ended = outcome(&*runtime, spec).await;
    assert!(
        matches!(ended.result, AttemptResult::Failed(_)),
        "{ended:?}"
    );
}
