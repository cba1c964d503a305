//! Python environments for the stock clients.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;

use crate::shell::run;

/// Lines that are told when an installation fails.
const LAST_LINES_MAX: usize = 20;

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
    eprintln!("creating a Python environment in {}", folder.display());
    let mut venv = Command::new("python3");
    run(venv.args(["-m", "venv", "--clear"]).arg(folder))
        .context("Python 3 with its venv module is needed (Debian: python3-venv)")?;
    let mut install = Command::new(&python);
    let pip = ["-m", "pip", "install", "--disable-pip-version-check"];
    install.args(pip).args(["--progress-bar", "off", "-r"]);
    show(install.arg(file))?;
    std::fs::write(&mark, wanted)?;
    Ok(python)
}

/// Runs an installation and shows what it is at: in one line of a terminal, else in its own words.
fn show(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let in_place = std::io::stderr().is_terminal();
    let progress = if in_place {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    progress.enable_steady_tick(Duration::from_millis(100));
    let mut last = std::collections::VecDeque::new();
    for line in child
        .stdout
        .take()
        .into_iter()
        .flat_map(|out| BufReader::new(out).lines())
    {
        let line = line?;
        let line = line.trim();
        if in_place {
            progress.set_message(line.chars().take(70).collect::<String>());
        } else if !line.starts_with("Requirement already") {
            eprintln!("  {line}");
        }
        last.push_back(line.to_owned());
        last.drain(..last.len().saturating_sub(LAST_LINES_MAX));
    }
    let status = child.wait()?;
    progress.finish_and_clear();
    if !status.success() {
        let last: Vec<_> = last.into();
        bail!("{shown} ended with {status}:\n{}", last.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_that_fails_tells_its_last_lines() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 40; echo Collecting nothing; exit 3"]);

        let message = show(&mut command).unwrap_err().to_string();

        assert!(message.contains("\n40\nCollecting nothing"), "{message}");
        assert!(!message.contains("\n20\n"), "{message}");
    }
}
