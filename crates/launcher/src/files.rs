//! The files of an attempt.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use procfs::process::Process;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::outcome::is_storage_full;
use crate::{AttemptSpec, Outcome, process_tree};

/// How much of a log's end goes into an outcome.
const TAIL_MAX: u64 = 4096;

/// Refuses to open a link, and does not wait for the other end of a pipe.
const NO_LINK_NO_WAIT: i32 = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .bits()
    .cast_signed();

/// Room for an outcome with a log's end; a longer one needs more disk.
const OUTCOME_RESERVE: usize = 16 * 1024;

/// The folder of an attempt and what is in it.
#[derive(Debug, Clone)]
pub struct AttemptFiles {
    dir: PathBuf,
}

impl AttemptFiles {
    /// The attempt in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the command prints.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log.txt")
    }

    /// Writes what is to be done.
    pub fn write_spec(&self, spec: &AttemptSpec) -> io::Result<()> {
        write_atomic(&self.dir.join("spec.json"), spec)
    }

    /// What is to be done.
    pub fn read_spec(&self) -> io::Result<Option<AttemptSpec>> {
        read_json(&self.dir.join("spec.json"))
    }

    /// Sets room for the outcome aside, so that a command that fills the disk can be told of.
    pub fn reserve(&self) -> io::Result<()> {
        fs::write(self.dir.join("outcome.part"), [b' '; OUTCOME_RESERVE])
    }

    /// Writes the outcome; a reader sees all of it or nothing. What was set aside is written over; an
    /// outcome that is longer, and that a full disk has no room for, gives way to one that says so.
    pub fn write_outcome(&self, outcome: &Outcome) -> io::Result<()> {
        let bytes = serde_json::to_vec(outcome)?;
        match self.put_outcome(&bytes) {
            Err(error) if bytes.len() > OUTCOME_RESERVE && is_storage_full(&error) => {
                let short = outcome.shortened(bytes.len(), &error);
                self.put_outcome(&serde_json::to_vec(&short)?)
            }
            result => result,
        }
    }

    fn put_outcome(&self, bytes: &[u8]) -> io::Result<()> {
        let part = self.dir.join("outcome.part");
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .custom_flags(NO_LINK_NO_WAIT)
                .open(&part)
        };
        let mut file = match open() {
            // The command may have put a link or a pipe there.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::LOOP | Errno::NXIO)
                ) =>
            {
                fs::remove_file(&part)?;
                open()?
            }
            opened => opened?,
        };
        // Cut only afterwards: on a full disk there are no blocks but those that were set aside.
        file.write_all(bytes)?;
        file.set_len(bytes.len() as u64)?;
        fs::rename(&part, self.dir.join("outcome.json"))
    }

    /// The outcome, once there is one.
    pub fn read_outcome(&self) -> io::Result<Option<Outcome>> {
        read_json(&self.dir.join("outcome.json"))
    }

    /// Whether the command was, or was about to be, executed.
    pub fn started(&self) -> bool {
        self.dir.join("started").exists()
    }

    /// Marks the command as started; `false` if that was done before.
    pub fn mark_started(&self) -> io::Result<bool> {
        match File::create_new(self.dir.join("started")) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the lock without taking it, so that it is ours and not the launcher's.
    pub fn make_lock(&self) -> io::Result<()> {
        self.open_lock().map(drop)
    }

    fn open_lock(&self) -> io::Result<File> {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(NO_LINK_NO_WAIT)
            .open(self.lock())
    }

    /// Takes the launcher's lock; `None` while another launcher lives. Held until the file closes.
    pub fn try_lock(&self) -> io::Result<Option<File>> {
        let file = self.open_lock()?;
        // The kernel releases it when the launcher ends, however it does.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when no launcher lives (blocking).
    pub fn wait_unlocked(&self) -> io::Result<()> {
        let file = self.open_lock()?;
        // Shared, so that those who wait do not wait for each other.
        flock(&file, FlockOperation::LockShared)?;
        Ok(())
    }

    fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Asks the launcher to take the end of the command for a cancellation.
    pub fn request_stop(&self) -> io::Result<()> {
        File::create(self.dir.join("stop")).map(drop)
    }

    /// Whether that was asked.
    pub fn stop_requested(&self) -> bool {
        self.dir.join("stop").exists()
    }

    /// Notes that this process is the launcher; `lock` is the one that it holds.
    pub(crate) fn write_launcher(mut lock: &File) -> io::Result<()> {
        let here = Process::myself().and_then(|here| Ok((here.pid(), here.stat()?.starttime)));
        let (pid, started) = here.map_err(io::Error::other)?;
        lock.set_len(0)?;
        write!(lock, "{pid} {started}")
    }

    /// Sends SIGTERM to the launcher, so that it ends its command; `false` when there is none.
    pub fn terminate_launcher(&self) -> io::Result<bool> {
        let text = read_no_follow(&self.lock())?;
        let noted = text.split_once(' ');
        let noted = noted.and_then(|(pid, at)| Some((pid.parse().ok()?, at.parse::<u64>().ok()?)));
        let Some((number, started)) = noted else {
            return Ok(false);
        };
        let Ok(process) = Process::new(number) else {
            return Ok(false);
        };
        // The number may be another process's by now.
        let is_launcher = process.stat().is_ok_and(|found| found.starttime == started);
        Ok(is_launcher && process_tree::send_signal(&process, Signal::TERM))
    }

    /// The command's process group, as launchers up to 0.1.0 noted it instead of themselves; only
    /// meaningful while the launcher's lock is held.
    pub fn read_process_group(&self) -> Option<i32> {
        read_no_follow(&self.dir.join("process"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Notes the control group of what the command started.
    pub(crate) fn write_group(&self, dir: &Path) -> io::Result<()> {
        fs::write(self.dir.join("cgroup"), dir.as_os_str().as_bytes())
    }

    /// The control group that was noted.
    pub(crate) fn read_group(&self) -> Option<PathBuf> {
        let text = read_no_follow(&self.dir.join("cgroup")).ok()?;
        Some(text.into())
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        self.log_end(TAIL_MAX)
    }

    /// The lines in the last `limit` bytes of the log.
    pub(crate) fn log_end(&self, limit: u64) -> String {
        tail(&self.log(), limit).unwrap_or_default()
    }
}

fn tail(path: &Path, limit: u64) -> io::Result<String> {
    let mut file = open_no_follow(path)?;
    let len = file.metadata()?.len();
    let start = len.saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line is cut somewhere in the middle.
    let text = match (start, text.split_once('\n')) {
        (1.., Some((_, rest))) => rest,
        _ => &text,
    };
    Ok(text.trim_end().to_owned())
}

/// Opens a file that a command may have put something else in the place of: a link is not followed,
/// since the reader may see more than the command does, and a pipe is not waited for.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    open_regular(path, NO_LINK_NO_WAIT)
}

/// Opens a regular file that a command left; a link is followed, a pipe is not waited for.
pub(crate) fn open_output(path: &Path) -> io::Result<File> {
    open_regular(
        path,
        (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed(),
    )
}

fn open_regular(path: &Path, flags: i32) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let message = format!("{} is not a regular file", path.display());
    Err(io::Error::other(message))
}

fn read_no_follow(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_no_follow(path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn write_atomic(path: &Path, value: &impl Serialize) -> io::Result<()> {
    // Under a name of its own: a server that came back may write while the former one ends.
    let part = path.with_extension(format!("{}.part", Uuid::new_v4()));
    let written = File::create(&part)
        .and_then(|mut file| file.write_all(&serde_json::to_vec(value)?))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // Nothing is to stay on a full disk. The part may not even have been made.
        let _removed = fs::remove_file(&part).is_ok();
    }
    written
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let mut bytes = Vec::new();
    let read = open_no_follow(path).and_then(|mut file| file.read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use ferroflow_types::time::{Clock as _, SystemClock};
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use serde_json::json;

    use super::*;
    use crate::{AttemptResult, FailureReason, Outputs};

    #[test]
    #[allow(clippy::print_stdout, reason = "says what was left out")]
    fn an_outcome_that_a_full_disk_has_no_room_for_says_so() {
        let temp = tempfile::tempdir().unwrap();
        let disk = temp.path().to_owned();
        // The mount is this thread's alone.
        let thread = std::thread::spawn(move || {
            let none = None::<&str>;
            let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
            let mounted = unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(none, "/", none, slave, none))
                .and_then(|()| {
                    let size = Some("size=64k");
                    mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), size)
                });
            if mounted.is_err() {
                println!("left out: nothing can be mounted here");
                return;
            }
            let files = AttemptFiles::new(&disk);
            files.reserve().unwrap();
            // As a command does that fills the disk.
            let mut filler = File::create(disk.join("filler")).unwrap();
            while filler.write_all(&[1; 4096]).is_ok() {}
            let mut outputs = Outputs::default();
            let value = json!("x".repeat(2 * OUTCOME_RESERVE));
            outputs.parameters.insert("text".to_owned(), value);
            let now = SystemClock.now();

            let outcome = Outcome {
                started_at: now,
                finished_at: now,
                result: AttemptResult::Succeeded(outputs),
            };
            files.write_outcome(&outcome).unwrap();

            let found = files.read_outcome().unwrap().unwrap();
            let AttemptResult::Failed(failure) = found.result else {
                panic!("it succeeded");
            };
            assert_eq!(failure.reason, FailureReason::NoSpace);
            assert!(failure.message.contains("outputs"), "{}", failure.message);
        });
        thread.join().unwrap();
    }
}
