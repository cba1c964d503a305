//! Building one environment.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::tool::{Interpreter, last_words, tool};
use crate::{EnvError, EnvSpec, PipInstall, PythonConfig};

/// Builds the environment `key`, unless another process has done so while we waited for it.
pub(crate) async fn build(
    config: &PythonConfig,
    python: &Interpreter,
    uv: &Path,
    key: &str,
    spec: &EnvSpec,
) -> Result<(), EnvError> {
    let failed = |error: io::Error| EnvError::Io(error.to_string());
    let lock = config.root.join(format!("{key}.lock"));
    let _held = tokio::task::spawn_blocking(move || lock_file(&lock))
        .await
        .map_err(|error| EnvError::Io(error.to_string()))?
        .map_err(failed)?;
    let ready = config.root.join(format!("{key}.ready"));
    let dir = config.root.join(key);
    if ready.exists() && dir.join("bin/python3").exists() {
        return Ok(());
    }
    tracing::info!(key, "building a Python environment");
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(failed)?;
    }
    fill(config, python, uv, &dir, spec).await?;
    File::create(&ready).map(drop).map_err(failed)
}

/// Makes a venv in `dir` and installs into it.
pub(crate) async fn fill(
    config: &PythonConfig,
    python: &Interpreter,
    uv: &Path,
    dir: &Path,
    spec: &EnvSpec,
) -> Result<(), EnvError> {
    let mut create = tool(config, uv);
    create
        .args([
            "venv",
            "--quiet",
            "--seed",
            "--native-tls",
            "--python",
            &python.path,
        ])
        .arg(dir);
    let output = create
        .output()
        .await
        .map_err(|error| EnvError::Io(error.to_string()))?;
    if !output.status.success() {
        return Err(EnvError::Io(last_words(&output)));
    }
    for step in &spec.steps {
        install(config, uv, dir, step).await?;
    }
    Ok(())
}

async fn install(
    config: &PythonConfig,
    uv: &Path,
    dir: &Path,
    step: &PipInstall,
) -> Result<(), EnvError> {
    let mut command = tool(config, uv);
    // Bytecode is made now, so that no step's first import pays for it.
    command.args([
        "pip",
        "install",
        "--quiet",
        "--native-tls",
        "--compile-bytecode",
    ]);
    // As pip does: the best version of any index, pre-releases when asked for by version.
    command.args([
        "--index-strategy",
        "unsafe-best-match",
        "--prerelease",
        "if-necessary-or-explicit",
    ]);
    command.arg("--python").arg(dir.join("bin/python3"));
    if step.no_deps {
        command.arg("--no-deps");
    }
    if let Some(url) = &step.index_url {
        command.args(["--default-index", url]);
    }
    for url in &step.extra_index_urls {
        command.args(["--index", url]);
    }
    for host in &step.trusted_hosts {
        command.args(["--allow-insecure-host", host]);
    }
    command.arg("--").args(&step.packages);
    let output = command
        .output()
        .await
        .map_err(|error| EnvError::Io(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(EnvError::Install {
        packages: step.packages.join(" "),
        problem: last_words(&output),
    })
}

fn lock_file(path: &PathBuf) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.lock()?;
    Ok(file)
}
