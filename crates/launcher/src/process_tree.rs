//! Everything that a command started, wherever it went: process groups and sessions of its own
//! included.
//!
//! The launcher is the subreaper of its command: a process whose parent ends becomes the launcher's
//! child, so nothing that the command started can leave the tree below the launcher, and when the
//! launcher has no children, nothing is left. Of what is found in `/proc`, only that is signalled
//! which is still the process that was found there: a process is held by a descriptor
//! (`pidfd_open(2)`), and looked at again through the folder that was opened first.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use procfs::process::{Process, all_processes};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, pidfd_send_signal,
    set_child_subreaper, wait,
};

use crate::control_group::ControlGroup;
use crate::{Failure, FailureReason};

/// How long processes that were killed may take to be gone; a process in a system call that does
/// not return outlives SIGKILL.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The first wait for them, and the longest.
const REAP_WAITS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Makes this process the parent of every descendant whose own parent ends.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Waits for a child. Others that end meanwhile are reaped, so that a long command with many orphans
/// does not use up the machine's process numbers.
pub(crate) fn wait_for(child: Pid) -> io::Result<ExitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => {
                return Ok(ExitStatus::from_raw(status.as_raw()));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Signals everything below this process.
pub(crate) fn signal_descendants(signal: Signal) -> io::Result<()> {
    for process in descendants()? {
        let _sent = send_signal(&process, signal);
    }
    Ok(())
}

/// Kills and reaps everything below this process.
///
/// # Errors
/// Names what does not end.
pub(crate) fn kill_and_reap(group: Option<&ControlGroup>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::of_io("cannot end what it started", &error);
    let begun = Instant::now();
    let mut pause = REAP_WAITS.0;
    while !all_reaped().map_err(failed)? {
        // The group first: a process that forks fast could be ahead of the search below for long.
        if let Some(group) = group {
            group.kill().map_err(failed)?;
        }
        let left = descendants().map_err(failed)?;
        for process in &left {
            let _sent = send_signal(process, Signal::KILL);
        }
        if begun.elapsed() > KILL_TIMEOUT {
            return Err(Failure::new(
                FailureReason::ProcessesLeft,
                cannot_end_message(&left),
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(REAP_WAITS.1);
    }
    Ok(())
}

/// What is said of processes that outlive SIGKILL.
pub(crate) fn cannot_end_message(left: &[Process]) -> String {
    let named = left.iter().map(|process| {
        let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
        format!("{} ({name})", process.pid())
    });
    let named = named.collect::<Vec<_>>().join(", ");
    format!("it has ended, and processes that it started cannot be ended: {named}")
}

/// Reaps what has ended; whether that was all that there was.
fn all_reaped() -> io::Result<bool> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(false),
            Err(Errno::CHILD) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Everything below this process, parents first.
pub(crate) fn descendants() -> io::Result<Vec<Process>> {
    let own_pid = getpid().as_raw_nonzero().get();
    descendants_of(HashSet::from([own_pid]))
}

/// Everything below some processes, parents first; not these themselves.
pub(crate) fn descendants_of(roots: HashSet<i32>) -> io::Result<Vec<Process>> {
    let own_pid = getpid().as_raw_nonzero().get();
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all_processes().map_err(io::Error::other)? {
        // A process that ends meanwhile is left out.
        let Ok(process) = process else { continue };
        if let Ok(stat) = process.stat() {
            children.entry(stat.ppid).or_default().push(process);
        }
    }
    let mut found = Vec::new();
    let mut parents: Vec<i32> = roots.iter().copied().collect();
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            parents.push(child.pid());
            if !roots.contains(&child.pid()) && child.pid() != own_pid {
                found.push(child);
            }
        }
    }
    Ok(found)
}

/// Signals a process unless its number has become another's; whether that was possible. Otherwise it
/// has ended meanwhile, or is another user's: then it is still there when one looks again.
pub(crate) fn send_signal(process: &Process, signal: Signal) -> bool {
    let pidfd = |pid| pidfd_open(pid, PidfdFlags::empty());
    Pid::from_raw(process.pid())
        .is_some_and(|pid| send_signal_with(pidfd(pid), pid, process, signal))
}

/// The same with what `pidfd_open` gave for it.
fn send_signal_with(
    pidfd: Result<OwnedFd, Errno>,
    pid: Pid,
    process: &Process,
    signal: Signal,
) -> bool {
    // Looked at once it is held: its number cannot become another's between this and the signal.
    if process.stat().is_err() {
        return false;
    }
    let sent = match pidfd {
        Ok(pidfd) => pidfd_send_signal(pidfd, signal),
        // A kernel or a sandbox without such descriptors.
        Err(Errno::NOSYS | Errno::PERM) => kill_process(pid, signal),
        Err(error) => Err(error),
    };
    sent.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_signalled_without_a_pidfd_too() {
        for missing in [Errno::NOSYS, Errno::PERM] {
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            let process = Process::new(child.id().cast_signed()).unwrap();

            let pid = Pid::from_child(&child);
            let sent = send_signal_with(Err(missing), pid, &process, Signal::TERM);

            let status = child.wait().unwrap();
            assert!(sent && status.signal() == Some(15), "{missing}: {status}");
            assert!(!send_signal(&process, Signal::TERM), "it is gone");
        }
    }
}
