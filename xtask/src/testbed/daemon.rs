//! Processes that go on after us, and are known by their process file.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::{cache, wait};

fn file(name: &str) -> anyhow::Result<PathBuf> {
    let folder = cache()?.join("run/processes");
    fs::create_dir_all(&folder)?;
    Ok(folder.join(name))
}

/// The log of a process.
pub(super) fn log(name: &str) -> anyhow::Result<PathBuf> {
    let folder = cache()?.join("run/logs");
    fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{name}.log")))
}

/// Starts a process in a session of its own unless it runs already.
pub(super) fn start(name: &str, command: &mut Command) -> anyhow::Result<()> {
    if is_running(name) {
        return Ok(());
    }
    let log = File::create(log(name)?)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {name}: {command:?}"))?;
    let id = child.id();
    let begun = begun(id).context("it ended at once")?;
    fs::write(file(name)?, format!("{id} {begun}"))?;
    Ok(())
}

/// When the process began, in ticks since boot; with its number it names a process for ever.
fn begun(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program's name may hold anything, but it ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19).copied().map(str::to_owned))?
}

/// The process that we started under this name, if it still runs.
pub(super) fn running(name: &str) -> Option<u32> {
    let text = fs::read_to_string(file(name).ok()?).ok()?;
    let (id, noted) = text.split_once(' ')?;
    let id = id.parse().ok()?;
    (begun(id)? == noted).then_some(id)
}

pub(super) fn is_running(name: &str) -> bool {
    running(name).is_some()
}

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops a process that we started: politely, then for certain.
pub(super) fn stop(name: &str) -> anyhow::Result<()> {
    if let Some(id) = running(name) {
        signal(id, Signal::TERM);
        if wait(name, PATIENCE, || !is_running(name)).is_err() {
            kill(name)?;
        }
    }
    remove(&file(name)?)
}

/// Kills a process that we started and waits until it is gone.
pub(super) fn kill(name: &str) -> anyhow::Result<()> {
    if let Some(id) = running(name) {
        signal(id, Signal::KILL);
    }
    wait(&format!("{name} still runs"), PATIENCE, || {
        !is_running(name)
    })
}

fn signal(id: u32, signal: Signal) {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // An error means that it has ended, which is what is wanted.
        let _ended = kill_process(pid, signal).is_err();
    }
}

pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
