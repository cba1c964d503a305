//! What a command may read and not change: read-only mounts in a mount namespace of the launcher's.
//!
//! Mode bits do not bind root, and an owner can change them back; a mount binds both. The namespace
//! ends with the last process of the attempt, so nothing has to be unmounted. A server without the
//! right to make one gets it with a user namespace, where the system permits those. A command with
//! the right to administrate the system (`CAP_SYS_ADMIN`) can mount again: this keeps steps from
//! changing what is not theirs, it does not lock up a hostile root.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, openat, statvfs};
use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

/// Paths of this machine that a command only reads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadOnly {
    /// Files and folders with all that is in them; those that are not there are left out.
    pub paths: Vec<PathBuf>,
    /// Folders in them that are the command's own, and stay as they are.
    pub except: Vec<PathBuf>,
}

/// One path and what becomes of it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MountEntry {
    /// Outer paths come first, since a mount covers what was mounted below it.
    depth: usize,
    /// Of one path, the exception comes last.
    writable: bool,
    path: PathBuf,
}

impl ReadOnly {
    /// What is to be mounted, in order: real paths, each once, without exceptions that no path holds.
    fn mount_entries(&self) -> Vec<MountEntry> {
        let real = |paths: &[PathBuf], writable| {
            let found = paths.iter().filter_map(|path| path.canonicalize().ok());
            let entry = |path: PathBuf| MountEntry {
                depth: path.components().count(),
                writable,
                path,
            };
            found.map(entry).collect::<Vec<_>>()
        };
        let mut entries = real(&self.paths, false);
        let own = real(&self.except, true);
        let nested = own.into_iter().filter(|own| {
            let mut outer = entries.iter();
            outer.any(|outer| own.path.starts_with(&outer.path))
        });
        let nested: Vec<_> = nested.collect();
        entries.extend(nested);
        entries.sort();
        entries.dedup();
        entries
    }
}

/// Moves this process, which must have one thread, to a namespace where `read_only` holds.
///
/// # Errors
/// When the system does not permit it. Not all is read-only then, so nothing may be run.
pub(crate) fn mount_read_only(read_only: &ReadOnly) -> io::Result<()> {
    let entries = read_only.mount_entries();
    if entries.iter().all(|entry| entry.writable) {
        return Ok(());
    }
    enter_namespace()?;
    // Opened before anything is mounted: a later look at the path would find the read-only mount.
    let opened = entries.iter().map(|entry| open(&entry.path));
    let opened = opened.collect::<io::Result<Vec<_>>>()?;
    for (entry, opened) in entries.iter().zip(opened) {
        let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
        bind_mount(Path::new(&source), &entry.path)?;
        if !entry.writable {
            // A remount changes one mount, and the recursive bind brought those below it along.
            for mounted in mounted_in(&entry.path)? {
                remount_read_only(&mounted)?;
            }
        }
    }
    Ok(())
}

/// The argument that makes a launcher try whether [`ReadOnly`] can be had, in the folders that follow.
pub const TRY_READ_ONLY: &str = "--try-read-only";

/// Whether a process like this one can be kept from changing what is in `folders`, as its user or as
/// root. Leaves this process in a namespace of its own.
///
/// # Errors
/// Why it cannot.
pub fn try_read_only(folders: &[OsString]) -> io::Result<()> {
    mount_read_only(&ReadOnly {
        paths: folders.iter().map(PathBuf::from).collect(),
        except: Vec::new(),
    })?;
    folders
        .iter()
        .try_for_each(|folder| is_read_only(folder.as_ref()))
}

fn is_read_only(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".read-only-{}", std::process::id()));
    match File::create(&probe) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            fs::remove_file(&probe)?;
            Err(io::Error::other("the folder can still be written to"))
        }
    }
}

/// Enters a mount namespace; as itself if it may, else as the same user of a user namespace.
fn enter_namespace() -> io::Result<()> {
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        let (user, group) = (geteuid(), getegid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        // Without this, a process without privileges may not write `gid_map` (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    }
    // What is mounted here must not show outside.
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    Ok(mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)?)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn bind_mount(from: &Path, to: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(mount(Some(from), to, None::<&str>, flags, None::<&str>)?)
}

/// Flags that a user namespace must not take away from a mount, by their names in `statvfs`.
const PRESERVED_FLAGS: [(StatVfsMountFlags, MsFlags); 5] = [
    (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
    (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
    (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
    (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
    (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
];

fn remount_read_only(path: &Path) -> io::Result<()> {
    let found = statvfs(path)?.f_flag;
    let preserved = PRESERVED_FLAGS
        .iter()
        .filter(|(name, _)| found.contains(*name));
    let flags = preserved.fold(
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        |flags, (_, flag)| flags | *flag,
    );
    Ok(mount(
        None::<&str>,
        path,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

/// What is mounted at `path` and below it.
fn mounted_in(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|point| PathBuf::from(unescaped(point)));
    let mut found: Vec<_> = points.filter(|point| point.starts_with(path)).collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// A path of the mount table, where blanks and the like are three octal digits behind a backslash.
fn unescaped(text: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    std::ffi::OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_paths_come_first_and_exceptions_outside_are_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        for folder in ["store/run/outputs", "elsewhere"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let at = |names: &[&str]| names.iter().map(|name| root.join(name)).collect();
        let read_only = ReadOnly {
            paths: at(&["store/run", "store", "store", "none"]),
            except: at(&["store/run/outputs", "elsewhere", "store/run"]),
        };

        let entries = read_only.mount_entries();

        let found: Vec<_> = entries
            .iter()
            .map(|entry| (entry.path.strip_prefix(&root).unwrap(), entry.writable))
            .map(|(path, writable)| (path.to_str().unwrap(), writable))
            .collect();
        let expected = [
            ("store", false),
            ("store/run", false),
            ("store/run", true),
            ("store/run/outputs", true),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_folder_that_can_be_written_to_is_left_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        assert!(is_read_only(temp.path()).is_err());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn blanks_of_the_mount_table_are_read() {
        assert_eq!(unescaped(r"/a\040b\134c\011"), "/a b\\c\t");
        assert_eq!(unescaped(r"/a\04"), r"/a\04");
    }
}
