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
use crate::process_tree::{self, KILL_TIMEOUT};
use crate::{AttemptFiles, AttemptKey};

/// The variable that says which attempt a process belongs to.
pub const ATTEMPT_VARIABLE: &str = "FERROFLOW_ATTEMPT";

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Ends what is left of an attempt that no launcher has any more (blocking).
///
/// # Errors
/// When `/proc` cannot be read, or names what cannot be ended.
pub fn end_leftovers(files: &AttemptFiles, key: &AttemptKey) -> io::Result<()> {
    let group = ControlGroup::find_leftover(files, key);
    let begun = Instant::now();
    loop {
        let left = marked_processes(key)?;
        let empty = group.as_ref().is_none_or(ControlGroup::is_empty);
        if left.is_empty() && empty {
            return Ok(());
        }
        if begun.elapsed() > KILL_TIMEOUT {
            return Err(io::Error::other(process_tree::cannot_end_message(&left)));
        }
        if let Some(group) = &group {
            group.kill()?;
        }
        for process in &left {
            let _sent = process_tree::send_signal(process, Signal::KILL);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Processes with the attempt's mark, and everything below them.
fn marked_processes(key: &AttemptKey) -> io::Result<Vec<Process>> {
    let own_pid = getpid().as_raw_nonzero().get();
    let mark = key.to_string();
    let mut found = Vec::new();
    for process in all_processes().map_err(io::Error::other)? {
        let Ok(process) = process else { continue };
        // Those of other users cannot be read, and are not ours.
        let Ok(environment) = process.environ() else {
            continue;
        };
        let is_marked = environment.get(OsStr::new(ATTEMPT_VARIABLE)) == Some(&mark.clone().into());
        if is_marked && process.pid() != own_pid {
            found.push(process);
        }
    }
    if found.is_empty() {
        return Ok(found);
    }
    let roots: HashSet<i32> = found.iter().map(Process::pid).collect();
    found.extend(process_tree::descendants_of(roots)?);
    // One that has ended waits for its parent only, and cannot be ended again.
    found.retain(|process| process.stat().is_ok_and(|stat| stat.state != 'Z'));
    Ok(found)
}
