//! Python environments for the stock clients.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;

use crate::shell::run;

/// A venv in `folder` with the requirements of `file`; its interpreter. Made once per content of
/// the file.
pub(crate) fn environment(folder: &Path, file: &Path) -> anyhow::Result<PathBuf> {
    let wanted =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let python = folder.join("bin/python");
    let mark = folder.join("requirements.installed");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let progress = ProgressBar::new_spinner();
    progress.set_message(format!(
        "creating a Python environment in {}",
        folder.display()
    ));
    progress.enable_steady_tick(Duration::from_millis(100));
    let mut venv = Command::new("python3");
    run(venv.args(["-m", "venv", "--clear"]).arg(folder))
        .context("Python 3 with its venv module is needed (Debian: python3-venv)")?;
    let mut install = Command::new(&python);
    run(install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(file))?;
    std::fs::write(&mark, wanted)?;
    progress.finish_and_clear();
    Ok(python)
}
