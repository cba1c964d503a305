//! Environments built for real, with packages from PyPI.

use std::process::Command;
use std::sync::Arc;

use ferroflow_python_env::{EnvError, EnvSpec, PipInstall, PythonConfig, PythonEnvs};

fn environments(root: &std::path::Path, interpreter: &str) -> Arc<PythonEnvs> {
    let config = PythonConfig::new(root.to_path_buf(), interpreter.to_owned(), std::env::vars());
    Arc::new(PythonEnvs::new(config))
}

fn spec_with(package: &str) -> EnvSpec {
    let step = PipInstall {
        packages: vec![package.to_owned()],
        ..PipInstall::default()
    };
    EnvSpec {
        steps: vec![step],
        python: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_share_one_environment_that_has_the_package() {
    let root = tempfile::tempdir().unwrap();
    let envs = environments(root.path(), "python3");
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let envs = Arc::clone(&envs);
            tokio::spawn(async move { envs.ensure(&spec_with("six==1.16.0")).await.unwrap() })
        })
        .collect();
    let mut found = Vec::new();
    for task in tasks {
        found.push(task.await.unwrap());
    }

    assert!(found.iter().all(|env| env == &found[0]));
    let python = found[0].bin.join("python3");
    let output = Command::new(python)
        .args(["-c", "import six; print(six.__version__)"])
        .output();
    assert_eq!(output.unwrap().stdout, b"1.16.0\n");
    // A second service on the same folder finds it.
    let again = environments(root.path(), "python3")
        .ensure(&spec_with("six==1.16.0"))
        .await
        .unwrap();
    assert_eq!(again, found[0]);
}

#[tokio::test]
async fn a_package_that_is_not_there_is_named() {
    let root = tempfile::tempdir().unwrap();

    let error = environments(root.path(), "python3")
        .ensure(&spec_with("ferroflow-no-such-package==9"))
        .await
        .unwrap_err();

    assert!(matches!(error, EnvError::Install { .. }), "{error}");
    assert!(
        error.to_string().contains("ferroflow-no-such-package"),
        "{error}"
    );
}

#[tokio::test]
async fn a_missing_interpreter_is_named_with_the_way_out() {
    let root = tempfile::tempdir().unwrap();

    let error = environments(root.path(), "no-such-python")
        .ensure(&EnvSpec::default())
        .await
        .unwrap_err();

    assert!(
        error.to_string().contains("FERROFLOW_PYTHON__INTERPRETER"),
        "{error}"
    );
}
