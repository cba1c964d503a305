//! The interpreter and uv.

use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

use crate::{EnvError, PythonConfig};

/// A Python that environments are made with.
#[derive(Debug, Clone)]
pub(crate) struct Interpreter {
    pub(crate) path: String,
    /// Implementation, version and platform: an environment fits no other.
    pub(crate) version: String,
}

/// Text of a tool's last words in an error.
const WORDS_MAX: usize = 1500;

/// A tool with the configured environment and nothing else.
pub(crate) fn tool(config: &PythonConfig, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(config.tool_env.iter().map(|(name, value)| (name, value)));
    command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    command
}

/// The Python behind a name or a path.
pub(crate) async fn find_python(
    config: &PythonConfig,
    program: &str,
) -> Result<Interpreter, EnvError> {
    let script = "import sys, sysconfig; \
        print(sys.executable); \
        print(sys.implementation.cache_tag, sys.version.split()[0], sysconfig.get_platform())";
    let output = tool(config, program).args(["-c", script]).output().await;
    let missing = || EnvError::NoPython(program.to_owned());
    let output = output.map_err(|_| missing())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    match (output.status.success(), lines.next(), lines.next()) {
        (true, Some(path), Some(version)) => Ok(Interpreter {
            path: path.to_owned(),
            version: version.to_owned(),
        }),
        _ => Err(missing()),
    }
}

/// uv on the PATH, or fetched from PyPI into the data folder.
pub(crate) async fn find_uv(
    config: &PythonConfig,
    python: &Interpreter,
) -> Result<PathBuf, EnvError> {
    if works(config, Path::new("uv")).await {
        return Ok(PathBuf::from("uv"));
    }
    let folder = config.root.join("tools");
    let uv = folder.join("bin/uv");
    if works(config, &uv).await {
        return Ok(uv);
    }
    tracing::info!("fetching uv from PyPI");
    let output = tool(config, &python.path)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--upgrade",
            "--target",
        ])
        .arg(&folder)
        .arg("uv")
        .output()
        .await
        .map_err(|error| EnvError::NoUv(error.to_string()))?;
    if output.status.success() && works(config, &uv).await {
        return Ok(uv);
    }
    Err(EnvError::NoUv(config.secrets().hide(&last_words(&output))))
}

async fn works(config: &PythonConfig, uv: &Path) -> bool {
    let output = tool(config, uv).arg("--version").output().await;
    output.is_ok_and(|output| output.status.success())
}

/// The end of what a tool said.
pub(crate) fn last_words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = match text.trim() {
        "" => String::from_utf8_lossy(&output.stdout),
        _ => text,
    };
    let text = text.trim();
    let start = text.len().saturating_sub(WORDS_MAX);
    let start = (start..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    text[start..].to_owned()
}
