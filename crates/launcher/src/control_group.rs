//! A control group for what a command started, where the system lets us make one (cgroup v2).
//!
//! The kernel kills a whole group at once, also processes that multiply faster than they are found
//! one by one, and those of other users. A command is moved to its group once it has run for a
//! moment: a move waits for an RCU grace period (5 to 20 ms measured on Linux 6.18), which is longer
//! than many commands take. Until then, and where there are no such groups, `process_tree` does
//! without.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use procfs::process::Process;
use rustix::fs::statfs;
use rustix::io::Errno;

use crate::{AttemptFiles, AttemptKey, process_tree};

/// The type of a cgroup v2 file system (`CGROUP2_SUPER_MAGIC` of linux/magic.h).
const CGROUP2: u64 = 0x6367_7270;

/// How often the tree below is looked at while it is moved; what still appears then belongs to a
/// command that forks faster, whose later processes are in the group anyway.
const SCANS_MAX: usize = 8;

/// A group of our own.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    dir: PathBuf,
}

impl ControlGroup {
    /// Puts everything below this process into a new group; nothing where that is not possible.
    pub(crate) fn create_for_descendants(files: &AttemptFiles, key: &AttemptKey) -> Option<Self> {
        let group = Self::create(&own_dir()?, key)?;
        // If this launcher is killed, `find_leftover` finds the group by this.
        files.write_group(&group.dir).ok()?;
        // What is not moved is killed one by one.
        let _moved = group.move_descendants().is_ok();
        Some(group)
    }

    fn create(parent: &Path, key: &AttemptKey) -> Option<Self> {
        let dir = parent.join(name(key));
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
            _ => {}
        }
        let group = Self { dir };
        // The file is there since Linux 5.14.
        group.dir.join("cgroup.kill").exists().then_some(group)
    }

    /// The group of an attempt whose launcher was killed. The command could write where it is noted,
    /// so it has to be the attempt's group by its name, in a cgroup file system.
    pub(crate) fn find_leftover(files: &AttemptFiles, key: &AttemptKey) -> Option<Self> {
        let dir = files.read_group()?.canonicalize().ok()?;
        let is_own = dir.file_name()?.to_str()? == name(key);
        let is_group = statfs(&dir).ok()?.f_type.cast_unsigned() == CGROUP2;
        (is_own && is_group).then_some(Self { dir })
    }

    fn move_descendants(&self) -> io::Result<()> {
        let procs = self.dir.join("cgroup.procs");
        let mut moved_pids = HashSet::new();
        for _ in 0..SCANS_MAX {
            let found = process_tree::descendants()?;
            let new: Vec<_> = found
                .iter()
                .map(Process::pid)
                .filter(|pid| moved_pids.insert(*pid))
                .collect();
            if new.is_empty() {
                break;
            }
            for pid in new {
                match fs::write(&procs, pid.to_string()) {
                    // `ESRCH`: the process has ended meanwhile.
                    Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Kills every process of the group.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.kill"), "1")
    }

    /// Whether no process is in it.
    pub(crate) fn is_empty(&self) -> bool {
        let procs = fs::read_to_string(self.dir.join("cgroup.procs"));
        procs.is_ok_and(|text| text.trim().is_empty())
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A group with processes cannot be removed, and an empty one that stays does no harm.
        let _busy = fs::remove_dir(&self.dir).is_err();
    }
}

fn name(key: &AttemptKey) -> String {
    format!("ferroflow-{}", key.name())
}

/// Where the control group of this process is, if a cgroup v2 file system shows it. Machines with
/// controllers of version 1 have one beside them, without controllers.
fn own_dir() -> Option<PathBuf> {
    let process = Process::myself().ok()?;
    let groups = process.cgroups().ok()?;
    let own = groups.into_iter().find(|group| group.hierarchy == 0)?;
    let mounts = process.mountinfo().ok()?;
    mounts
        .into_iter()
        .filter(|mount| mount.fs_type == "cgroup2")
        .find_map(|mount| {
            let inner = Path::new(&own.pathname).strip_prefix(&mount.root).ok()?;
            // `..` leads out of what this mount shows.
            let shown = inner
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            if !shown {
                return None;
            }
            let dir = mount.mount_point.join(inner);
            dir.is_dir().then_some(dir)
        })
}
