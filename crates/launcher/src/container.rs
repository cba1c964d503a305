//! The launcher as the first process of a container that shares its attempt's folder with the server.
//!
//! Everything is in that folder already, and the outcome goes there: nothing is transferred here, and
//! no keys are needed. Being told to end means that the place goes away, unless a stop was asked.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use rustix::process::geteuid;

use crate::cgroup;
use crate::run::{LaunchMode, Prepared, launch_with};
use crate::watchdog_channel::WatchdogChannel;

/// Runs the attempt in `dir`. What is made in `shared` and in `dir` belongs in the end to whom `dir`
/// belongs to, so that a server that is not root can remove what a container's root made.
///
/// # Errors
/// Only when not even an outcome can be written.
pub fn run(dir: &Path, shared: &[PathBuf]) -> io::Result<()> {
    let eviction_message =
        "its container was told to end (the engine stopped, or somebody stopped the container)";
    let channel = WatchdogChannel::from_signals(eviction_message)?;
    let oom_kills_before = cgroup::oom_kills();
    launch_with(
        dir,
        LaunchMode::Container,
        channel,
        Prepared::of(dir)?,
        |spec, result| {
            // Before the outcome is written: its file is set aside by then, and given away with the
            // rest.
            chown_to_owner(dir, shared);
            result.map_err(|mut failure| {
                if cgroup::oom_kills() > oom_kills_before {
                    cgroup::mark_out_of_memory(&mut failure, spec);
                }
                failure
            })
        },
    )
}

/// Gives what root made to the owner of the attempt's folder.
fn chown_to_owner(dir: &Path, shared: &[PathBuf]) {
    let Ok(owner) = fs::metadata(dir).map(|found| (found.uid(), found.gid())) else {
        return;
    };
    if !geteuid().is_root() || owner.0 == 0 {
        return;
    }
    for folder in shared.iter().map(PathBuf::as_path).chain([dir]) {
        chown_tree(folder, owner);
    }
}

fn chown_tree(path: &Path, (uid, gid): (u32, u32)) {
    let Ok(found) = fs::symlink_metadata(path) else {
        return;
    };
    if (found.uid(), found.gid()) != (uid, gid) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        // What cannot be given away stays: the command's result does not depend on it.
        let _unchanged = chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).is_err();
    }
    if found.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            chown_tree(&entry.path(), (uid, gid));
        }
    }
}
