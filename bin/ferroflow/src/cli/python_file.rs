//! A Python file with one pipeline, compiled by the Python that has the kfp SDK.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Compiles `argv[1]` to `argv[2]`; its exit codes are below.
const COMPILE: &str = include_str!("compile.py");

/// The SDK is not there.
const EXIT_NO_SDK: i32 = 10;
/// There is not exactly one pipeline; the reason is printed.
const EXIT_NOT_ONE_PIPELINE: i32 = 11;
/// The file itself failed; its traceback is printed.
const EXIT_COMPILATION_FAILED: i32 = 12;

/// Whether a file is Python by its name.
pub(super) fn is_python(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ending == "py")
}

/// The compiled pipeline of a file, as YAML.
pub(super) fn compile(
    file: &Path,
    function: Option<&str>,
    python: Option<&Path>,
) -> anyhow::Result<Vec<u8>> {
    let shown = file.display();
    if !file.exists() {
        bail!("cannot read {shown}: there is no such file");
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let package = folder.path().join("pipeline.yaml");
    let python = python.map_or_else(default_python, Path::to_path_buf);
    let mut command = Command::new(&python);
    command.args(["-c", COMPILE]).arg(file).arg(&package);
    command.args(function);
    // What the file prints is no result of ours.
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    let name = python.display();
    let output = output.with_context(|| {
        format!("{shown} needs a Python with the kfp SDK, and {name} cannot be started: name one with --python")
    })?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stderr = stderr.trim_end();
    match output.status.code() {
        Some(0) => std::fs::read(&package).with_context(|| {
            format!("{shown} ended the Python that compiles it before there was a pipeline")
        }),
        Some(EXIT_NO_SDK) => bail!(
            "{shown} needs a Python with the kfp SDK 2, and {name} has none ({stderr}): \
             `{name} -m pip install kfp`, or name another Python with --python"
        ),
        Some(EXIT_NOT_ONE_PIPELINE) => bail!("{shown}: {stderr}"),
        Some(EXIT_COMPILATION_FAILED) => bail!("{shown} cannot be compiled:\n{stderr}"),
        _ => bail!(
            "{name} ended with {} compiling {shown}:\n{stderr}",
            output.status
        ),
    }
}

/// That of the active virtual environment, else `python3`.
fn default_python() -> PathBuf {
    let active = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let python = active.map(|folder| folder.join("bin/python"));
    python
        .filter(|python| python.exists())
        .unwrap_or_else(|| PathBuf::from("python3"))
}
