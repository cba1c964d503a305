//! What the command of an attempt left behind because its launcher was killed.
//!
//! Nobody was there to end it, and the next attempt must not meet it. It is found by its control
//! group, where there was one, and by a mark in the environment that a command passes on to what it
//! starts. A process without the mark counts when one with it is among its parents.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::time::{Duration, Instant};

use procfs::process::{Process, all_processes};
use rustix::process::{Signal, getpid};

use crate::control_group::ControlGroup;
use crate::family::{self, PATIENCE};
use crate::{AttemptFiles, AttemptKey};

/// The variable that says which attempt a process belongs to.
pub const MARK: &str = "FERROFLOW_ATTEMPT";

const LOOK: Duration = Duration::from_millis(10);

/// Ends what is left of an attempt that no launcher has any more (blocking).
///
/// # Errors
/// When `/proc` cannot be read, or names what cannot be ended.
pub fn end_leftovers(files: &AttemptFiles, key: &AttemptKey) -> io::Result<()> {
    let group = ControlGroup::left_behind(files, key);
    let begun = Instant::now();
    loop {
        let left = marked(key)?;
        let empty = group.as_ref().is_none_or(ControlGroup::is_empty);
        if left.is_empty() && empty {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other(family::cannot_end(&left)));
        }
        if let Some(group) = &group {
            group.kill()?;
        }
        for process in &left {
            let _told = family::send(process, Signal::KILL);
        }
        std::thread::sleep(LOOK);
    }
}

/// Processes with the attempt's mark, and everything below them.
fn marked(key: &AttemptKey) -> io::Result<Vec<Process>> {
    let here = getpid().as_raw_nonzero().get();
    let mark = key.to_string();
    let mut found = Vec::new();
    for process in all_processes().map_err(io::Error::other)? {
        let Ok(process) = process else { continue };
        // Those of other users cannot be read, and are not ours.
        let Ok(environment) = process.environ() else {
            continue;
        };
        let is_marked = environment.get(OsStr::new(MARK)) == Some(&mark.clone().into());
        if is_marked && process.pid() != here {
            found.push(process);
        }
    }
    if found.is_empty() {
        return Ok(found);
    }
    let roots: HashSet<i32> = found.iter().map(Process::pid).collect();
    found.extend(family::below(roots)?);
    // One that has ended waits for its parent only, and cannot be ended again.
    found.retain(|process| process.stat().is_ok_and(|stat| stat.state != 'Z'));
    Ok(found)
}
