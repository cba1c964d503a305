//! The interpreter and uv.

use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

use crate::redact::Secrets;
use crate::{EnvError, PythonConfig};

/// A Python that environments are made with.
#[derive(Debug, Clone)]
pub(crate) struct Interpreter {
    pub(crate) path: String,
    /// Implementation, version and platform: an environment fits no other.
    pub(crate) version: String,
}

/// The longest part of a tool's output that an error quotes.
const OUTPUT_TAIL_MAX: usize = 1500;

/// A tool with the configured environment and nothing else.
pub(crate) fn tool(config: &PythonConfig, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(config.tool_env.iter().map(|(name, value)| (name, value)));
    command
        // A stopped attempt drops the future that waits for the tool, which must not go on then.
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    command
}

/// The Python behind a name or a path.
pub(crate) async fn find_python(
    config: &PythonConfig,
    program: &str,
) -> Result<Interpreter, EnvError> {
    // The program may be a link or a shim: what it is, the interpreter says itself.
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
    // One that is on the PATH and cannot be started is as good as none.
    if can_run(config, Path::new("uv")).await {
        return Ok(PathBuf::from("uv"));
    }
    let folder = config.root.join("tools");
    let uv = folder.join("bin/uv");
    if can_run(config, &uv).await {
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
    if output.status.success() && can_run(config, &uv).await {
        return Ok(uv);
    }
    Err(EnvError::NoUv(output_tail(&output, &config.secrets())))
}

async fn can_run(config: &PythonConfig, uv: &Path) -> bool {
    let output = tool(config, uv).arg("--version").output().await;
    output.is_ok_and(|output| output.status.success())
}

/// The end of what a tool said, without secrets.
pub(crate) fn output_tail(output: &Output, secrets: &Secrets) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = match text.trim() {
        "" => String::from_utf8_lossy(&output.stdout),
        _ => text,
    };
    // Before it is cut: a part of a secret would not be recognised.
    let text = secrets.redact(text.trim());
    let start = text.ceil_char_boundary(text.len().saturating_sub(OUTPUT_TAIL_MAX));
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn the_tail_is_of_what_was_printed() {
        let printed = |stdout: &str, stderr: &str| Output {
            status: ExitStatus::from_raw(256),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let tail = |output| output_tail(&output, &Secrets::default());

        assert_eq!(tail(printed("progress", " error\n")), "error");
        // Some tools print their errors to stdout.
        assert_eq!(
            tail(printed("No module named venv\n", " \n")),
            "No module named venv"
        );
    }

    #[test]
    fn a_secret_at_the_cut_is_hidden() {
        let mut secrets = Secrets::default();
        secrets.add("t0ken-t0ken-t0ken");
        for (secret, url) in [
            ("t0ken-t0ken-t0ken", "t0ken-t0ken-t0ken"),
            ("unknown-pass", "https://me:unknown-pass@host/"),
        ] {
            // The cut is in the middle of the secret.
            let after = url.len() - url.find(secret).unwrap() - secret.len();
            let rest = "é".repeat((OUTPUT_TAIL_MAX - secret.len() / 2 - after) / 2);
            let output = Output {
                status: ExitStatus::from_raw(256),
                stdout: Vec::new(),
                stderr: format!("cannot fetch {url}{rest}").into_bytes(),
            };

            let tail = output_tail(&output, &secrets);

            assert!(!tail.contains(&secret[secret.len() - 4..]), "{tail}");
            assert!(tail.len() <= OUTPUT_TAIL_MAX && tail.ends_with("éé"));
        }
    }
}
