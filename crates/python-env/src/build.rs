//! Building one environment.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::git;
use crate::pip::PipConfig;
use crate::redact::{Secrets, without_credentials};
use crate::tool::{Interpreter, output_tail, tool};
use crate::{EnvError, EnvSpec, PipInstall, PythonConfig};

/// What environments are built with.
pub(crate) struct Builder<'a> {
    pub(crate) config: &'a PythonConfig,
    pub(crate) python: &'a Interpreter,
    pub(crate) uv: &'a Path,
}

impl Builder<'_> {
    /// Builds the environment `key`, unless another process has done so while we waited for it.
    pub(crate) async fn build(&self, key: &str, spec: &EnvSpec) -> Result<(), EnvError> {
        let failed = |error: io::Error| EnvError::Io(error.to_string());
        let root = &self.config.root;
        let lock = root.join(format!("{key}.lock"));
        // Other processes over the same folder may build it too; waiting for the lock blocks a
        // thread.
        let _held = tokio::task::spawn_blocking(move || lock_file(&lock))
            .await
            .map_err(|error| EnvError::Io(error.to_string()))?
            .map_err(failed)?;
        let ready = root.join(format!("{key}.ready"));
        let dir = root.join(key);
        if ready.exists() && dir.join("bin/python3").exists() {
            return Ok(());
        }
        tracing::info!(key, "building a Python environment");
        // Without its mark it is what a build left that was cut off.
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(failed)?;
        }
        self.build_in(&dir, spec).await?;
        File::create(&ready).map(drop).map_err(failed)
    }

    /// Makes a venv in `dir` and installs into it.
    pub(crate) async fn build_in(&self, dir: &Path, spec: &EnvSpec) -> Result<(), EnvError> {
        let pip = PipConfig::read(self.config, self.python).await;
        let mut secrets = self.config.secrets();
        pip.secrets(&mut secrets);
        for text in spec.steps.iter().flat_map(PipInstall::texts) {
            secrets.add_urls(text);
        }
        self.create(&pip, &secrets, dir).await?;
        for step in &spec.steps {
            self.install(&pip, &secrets, dir, step).await?;
        }
        Ok(())
    }

    /// Makes a venv with pip in it: the newest of the index, or where that has none the interpreter's own.
    async fn create(&self, pip: &PipConfig, secrets: &Secrets, dir: &Path) -> Result<(), EnvError> {
        let failed = |error: io::Error| EnvError::Io(error.to_string());
        let options = pip.install_options(&PipInstall::default(), &self.config.tool_env);
        let venv = |how: &str| {
            let mut create = tool(self.config, self.uv);
            // `--native-tls`: the authorities that this machine trusts count, and not only those
            // that uv brings.
            create.args(["venv", "--quiet", "--native-tls", how, "--python"]);
            create.arg(&self.python.path).arg(dir);
            create.envs(options.env.clone());
            create
        };
        let seeded = venv("--seed").output().await.map_err(failed)?;
        if seeded.status.success() {
            return Ok(());
        }
        // The failed try may have left a venv without pip.
        let bare = venv("--clear").output().await.map_err(failed)?;
        let python = dir.join("bin/python3");
        let ensurepip = tool(self.config, python)
            .args(["-m", "ensurepip", "--default-pip"])
            .output();
        if bare.status.success() && ensurepip.await.is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
        Err(EnvError::Io(output_tail(&seeded, secrets)))
    }

    async fn install(
        &self,
        pip: &PipConfig,
        secrets: &Secrets,
        dir: &Path,
        step: &PipInstall,
    ) -> Result<(), EnvError> {
        let options = pip.install_options(step, &self.config.tool_env);
        let (packages, git_env) = git::separate_credentials(&step.packages, &self.config.tool_env);
        let mut command = tool(self.config, self.uv);
        // Bytecode is made now, so that no step's first import pays for it.
        command.args([
            "pip",
            "install",
            "--quiet",
            "--native-tls",
            "--compile-bytecode",
        ]);
        command.args(options.flags).arg("--python");
        command.arg(dir.join("bin/python3"));
        // Requirements come from standard input: a URL among them may have credentials, and a command
        // line is there for everybody to read.
        command.args(["--requirements", "-"]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(options.env).envs(git_env);
        let failed = |error: io::Error| EnvError::Io(error.to_string());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            let lines = packages.join("\n") + "\n";
            // An installer that ends without reading all says why.
            let _unread = input.write_all(lines.as_bytes()).await.is_err();
        }
        let output = child.wait_with_output().await.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        Err(EnvError::Install {
            packages: without_credentials(&step.packages.join(" ")),
            problem: output_tail(&output, secrets),
        })
    }
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
