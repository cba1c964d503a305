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
use crate::orders::Orders;
use crate::run::{Prepared, Surroundings, launch_with};

/// Runs the attempt in `dir`. What is made in `shared` and in `dir` belongs in the end to whom `dir`
/// belongs to, so that a server that is not root can remove what a container's root made.
///
/// # Errors
/// Only when not even an outcome can be written.
pub fn run(dir: &Path, shared: &[PathBuf]) -> io::Result<()> {
    let because =
        "its container was told to end (the engine stopped, or somebody stopped the container)";
    let orders = Orders::from_signals(because)?;
    let killed_before = cgroup::memory_kills();
    launch_with(
        dir,
        Surroundings::Container,
        orders,
        Prepared::of(dir)?,
        |spec, result| {
            // Before the outcome is written: its file is set aside by then, and given away with the
            // rest.
            hand_over(dir, shared);
            result.map_err(|mut failure| {
                if cgroup::memory_kills() > killed_before {
                    cgroup::blame_memory(&mut failure, spec);
                }
                failure
            })
        },
    )
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
        // What cannot be given away stays: the command's result does not depend on it.
        let _kept = chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).is_err();
    }
    if found.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            give(&entry.path(), (uid, gid));
        }
    }
}
