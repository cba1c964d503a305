//! Processes that go on after us, and are known by their process file.

mod process;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use super::{POLL_INTERVAL, cache, wait};
pub(super) use process::Process;

/// How long a process may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a log's end an error tells.
const LOG_TAIL_MAX: usize = 2000;

/// One of our processes, by its files.
struct Daemon {
    name: String,
    /// `<number> <when it began>`.
    file: PathBuf,
    log: PathBuf,
}

impl Daemon {
    fn of(name: &str) -> anyhow::Result<Self> {
        Self::in_folder(&cache()?.join("run"), name)
    }

    fn in_folder(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let (processes, logs) = (folder.join("processes"), folder.join("logs"));
        fs::create_dir_all(&processes)?;
        fs::create_dir_all(&logs)?;
        Ok(Self {
            name: name.to_owned(),
            file: processes.join(name),
            log: logs.join(format!("{name}.log")),
        })
    }

    fn running(&self) -> Option<Process> {
        let text = fs::read_to_string(&self.file).ok()?;
        Process::parse(&text).filter(Process::is_alive)
    }

    fn start(&self, command: &mut Command) -> anyhow::Result<()> {
        let name = &self.name;
        let log = File::create(&self.log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let process = Process::of(child.id()).with_context(|| format!("{name} ended at once"))?;
        fs::write(&self.file, process.to_string())?;
        Ok(())
    }

    fn ensure(
        &self,
        command: &mut Command,
        limit: Duration,
        mut answers: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let name = &self.name;
        if self.running().is_none() {
            if answers() {
                bail!("something else answers in the place of {name}, stop it first");
            }
            self.start(command)?;
        }
        let begun = Instant::now();
        loop {
            let answered = answers();
            if self.running().is_none() {
                bail!("{name} ended before it was ready, {}", self.log_tail());
            }
            if answered {
                return Ok(());
            }
            if begun.elapsed() > limit {
                let seconds = limit.as_secs();
                let log = self.log_tail();
                bail!("{name} does not answer after {seconds} s, {log}");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    fn stop(&self) -> anyhow::Result<()> {
        if let Some(process) = self.running() {
            process.signal(Signal::TERM);
            if wait(&self.name, STOP_TIMEOUT, || !process.is_alive()).is_err() {
                self.kill()?;
            }
        }
        remove(&self.file)
    }

    fn kill(&self) -> anyhow::Result<()> {
        match self.running() {
            Some(process) => {
                process.signal(Signal::KILL);
                process.wait_gone(&self.name)
            }
            None => Ok(()),
        }
    }
}

/// Starts a process in a session of its own unless it runs already, and waits until it answers; fails
/// as soon as it has ended instead.
pub(super) fn ensure(
    name: &str,
    command: &mut Command,
    limit: Duration,
    answers: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    Daemon::of(name)?.ensure(command, limit, answers)
}

pub(super) fn is_running(name: &str) -> bool {
    Daemon::of(name).is_ok_and(|daemon| daemon.running().is_some())
}

/// Stops a process that we started: politely, then for certain.
pub(super) fn stop(name: &str) -> anyhow::Result<()> {
    Daemon::of(name)?.stop()
}

/// Kills a process that we started and waits until it is gone.
pub(super) fn kill(name: &str) -> anyhow::Result<()> {
    Daemon::of(name)?.kill()
}

/// The end of a log, for an error.
pub(super) fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let end = &text[text.len().saturating_sub(LOG_TAIL_MAX)..];
    let end = String::from_utf8_lossy(end);
    format!("{} ends with:\n{}", log.display(), end.trim_end())
}

pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
