//! The launcher as the first process of a container that shares its attempt's folder with the server.
//!
//! Everything is in that folder already, and the report goes there: nothing is transferred here, and
//! no keys are needed. Being told to end means that the place goes away, unless a stop was asked.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

use crate::cgroup;
use crate::run::{Surroundings, launch_with};
use crate::{AttemptFiles, Failure, FailureReason};

/// How long a command may take to end once its container has to.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the attempt in `dir`. What is made in `shared` and in `dir` belongs in the end to whom `dir`
/// belongs to, so that a server that is not root can remove what a container's root made.
///
/// # Errors
/// Only when not even a report can be written.
pub async fn run(dir: &Path, shared: &[PathBuf]) -> io::Result<()> {
    let mut told = signal(SignalKind::terminate())?;
    let files = AttemptFiles::new(dir);
    let evicted = Arc::new(AtomicBool::new(false));
    let mut work = {
        let (dir, shared) = (dir.to_path_buf(), shared.to_vec());
        let evicted = Arc::clone(&evicted);
        tokio::task::spawn_blocking(move || {
            let killed_before = cgroup::memory_kills();
            launch_with(&dir, Surroundings::Container, |spec, result| {
                hand_over(&dir, &shared);
                let mut failure = match result {
                    Ok(outputs) => return Ok(outputs),
                    Err(failure) => failure,
                };
                if cgroup::memory_kills() > killed_before {
                    cgroup::blame_memory(&mut failure, spec);
                } else if evicted.load(Ordering::SeqCst) {
                    blame_engine(&mut failure);
                }
                Err(failure)
            })
        })
    };
    let ended = tokio::select! {
        ended = &mut work => ended,
        _ = told.recv() => {
            evicted.store(true, Ordering::SeqCst);
            end_group(&files, Signal::TERM);
            if let Ok(ended) = tokio::time::timeout(GRACE, &mut work).await {
                ended
            } else {
                end_group(&files, Signal::KILL);
                work.await
            }
        }
    };
    ended.map_err(io::Error::other)?
}

fn end_group(files: &AttemptFiles, signal: Signal) {
    if let Some(group) = files.read_process().and_then(Pid::from_raw) {
        // An error means that the group has ended, which is what is wanted.
        let _ended = kill_process_group(group, signal).is_err();
    }
}

/// A command that had to end is not to blame for its exit code.
fn blame_engine(failure: &mut Failure) {
    if matches!(
        failure.reason,
        FailureReason::ExitCode | FailureReason::Signal
    ) {
        failure.reason = FailureReason::Evicted;
        "its container was told to end (the engine stopped, or somebody stopped the container)"
            .clone_into(&mut failure.message);
    }
}

/// Gives what root made to the owner of the attempt's folder.
fn hand_over(dir: &Path, shared: &[PathBuf]) {
    let Ok(owner) = fs::metadata(dir).map(|found| (found.uid(), found.gid())) else {
        return;
    };
    if !geteuid().is_root() || owner.0 == 0 {
        return;
    }
    for folder in shared.iter().map(PathBuf::as_path).chain([dir]) {
        give(folder, owner);
    }
}

fn give(path: &Path, (uid, gid): (u32, u32)) {
    let Ok(found) = fs::symlink_metadata(path) else {
        return;
    };
    if (found.uid(), found.gid()) != (uid, gid) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        // What cannot be given away stays; the command's result does not hang on it.
        let _kept = chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).is_err();
    }
    if found.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            give(&entry.path(), (uid, gid));
        }
    }
}
