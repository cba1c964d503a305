//! A process of the machine, whoever its parent is.

use std::fmt;
use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::STOP_TIMEOUT;
use crate::testbed::wait;

/// A process for ever: its number may be another's one day, but not since the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::testbed) struct Process {
    id: u32,
    /// When it began, in ticks since boot.
    start_time: String,
}

impl Process {
    /// The process that has this number now.
    pub(in crate::testbed) fn of(id: u32) -> Option<Self> {
        let start_time = Stat::read(Path::new(&format!("/proc/{id}/stat")))?.start_time;
        Some(Self { id, start_time })
    }

    /// What `to_string` printed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, start_time) = text.split_once(' ')?;
        Some(Self {
            id: id.parse().ok()?,
            start_time: start_time.to_owned(),
        })
    }

    /// Whether anything of it is left. Its first thread may be a zombie, to be buried by a parent who
    /// does not care, while others still hold its ports and files.
    pub(in crate::testbed) fn is_alive(&self) -> bool {
        if Self::of(self.id).as_ref() != Some(self) {
            return false;
        }
        let threads = fs::read_dir(format!("/proc/{}/task", self.id));
        let mut threads = threads.into_iter().flatten().flatten();
        threads.any(|thread| {
            Stat::read(&thread.path().join("stat")).is_some_and(|stat| !stat.is_dead())
        })
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that it has ended, which is what is wanted.
            let _ended = kill_process(pid, signal).is_err();
        }
    }

    /// Waits until nothing of it is left.
    pub(in crate::testbed) fn wait_gone(&self, name: &str) -> anyhow::Result<()> {
        let what = format!("{name}, process {}, still runs", self.id);
        wait(&what, STOP_TIMEOUT, || !self.is_alive())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.start_time)
    }
}

/// What the kernel says of a thread.
struct Stat {
    state: String,
    start_time: String,
}

impl Stat {
    fn read(path: &Path) -> Option<Self> {
        let stat = fs::read_to_string(path).ok()?;
        // The program's name may hold anything, but it ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.to_string(),
            start_time: fields.get(19)?.to_string(),
        })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state.as_str(), "Z" | "X")
    }
}
