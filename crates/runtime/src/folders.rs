//! Attempts as folders of this machine: where they are, how their logs are read, how they go.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ferroflow_launcher::{
    AttemptFiles, AttemptKey, AttemptResult, Failure, FailureReason, Outcome, OwnerKey,
    open_no_follow,
};
use ferroflow_types::time::{Clock as _, SystemClock};
use futures::StreamExt as _;
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use crate::{Layout, LogRequest, LogStream, RuntimeError};

/// How often a log is looked at while somebody follows it, and a stopping command while it stops.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Bytes of a log that are handed on at once.
const CHUNK: usize = 64 * 1024;

/// The folders of attempts below a data folder.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    data_dir: PathBuf,
}

impl Folders {
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        Self { data_dir }
    }

    /// The files of an attempt.
    pub(crate) fn files(&self, key: &AttemptKey) -> AttemptFiles {
        AttemptFiles::new(self.attempts().join(key.folder()))
    }

    /// The files of an attempt that was asked for before.
    pub(crate) fn existing(&self, key: &AttemptKey) -> Result<AttemptFiles, RuntimeError> {
        let files = self.files(key);
        if files.dir().exists() {
            Ok(files)
        } else {
            Err(RuntimeError::Unknown(key.clone()))
        }
    }

    fn attempts(&self) -> PathBuf {
        self.data_dir.join("attempts")
    }

    pub(crate) fn workspace(&self, owner: &OwnerKey) -> PathBuf {
        self.data_dir.join("workspaces").join(owner.folder())
    }

    pub(crate) fn layout(&self, key: &AttemptKey) -> Layout {
        let files = self.files(key);
        let outputs_dir = files.dir().join("outputs");
        Layout {
            outputs_dir,
            working_dir: files.dir().join("work"),
            copies_dir: None,
        }
    }

    /// Removes everything of an owner.
    pub(crate) async fn delete(&self, owner: &OwnerKey) -> Result<(), RuntimeError> {
        let key = AttemptKey::of_owner(owner);
        let attempts = self.attempts().join(owner.folder());
        for dir in [attempts, self.workspace(owner)] {
            match fs::remove_dir_all(&dir).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(of_io(&key, "remove its owner's folders")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The outcome of an attempt, once there is one.
pub(crate) fn read_outcome(
    key: &AttemptKey,
    files: &AttemptFiles,
) -> Result<Option<Outcome>, RuntimeError> {
    files.read_outcome().map_err(of_io(key, "read its report"))
}

/// The outcome of an attempt whose command never ran, or ended unseen.
pub(crate) fn write_failure(files: &AttemptFiles, failure: Failure) -> io::Result<()> {
    files.write_outcome(&failed_outcome(failure))
}

/// A failure as an outcome of this moment.
pub(crate) fn failed_outcome(failure: Failure) -> Outcome {
    let now = SystemClock.now();
    Outcome {
        started_at: now,
        finished_at: now,
        result: AttemptResult::Failed(failure),
    }
}

/// What comes before the command may take long; a stopped attempt does not wait for it.
pub(crate) async fn unless_stopped<T>(
    files: &AttemptFiles,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    // Looked for and not signalled: the server that is asked to stop may be another process.
    let stopped = async {
        while !files.stop_requested() {
            tokio::time::sleep(POLL_INTERVAL * 4).await;
        }
    };
    tokio::select! {
        done = work => Ok(done),
        () = stopped => {
            Err(Failure::new(FailureReason::Canceled, "it was stopped before it began"))
        }
    }
}

pub(crate) fn of_io(
    key: &AttemptKey,
    what: &'static str,
) -> impl FnOnce(io::Error) -> RuntimeError {
    let key = key.clone();
    move |source| RuntimeError::Io { key, what, source }
}

/// A log that is being read.
struct LogReader {
    files: AttemptFiles,
    file: Option<fs::File>,
    offset: u64,
    follow: bool,
    ended: bool,
}

/// What the command printed, and with `follow` what it prints until its end.
pub(crate) fn log(files: AttemptFiles, request: LogRequest) -> LogStream {
    let LogRequest { offset, follow } = request;
    let state = LogReader {
        files,
        file: None,
        offset,
        follow,
        ended: false,
    };
    futures::stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|bytes| (bytes, state)))
    })
    .boxed()
}

impl LogReader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.read().await? {
                return Ok(Some(bytes));
            }
            if self.ended || !self.follow {
                return Ok(None);
            }
            // Then it is read once more: the command may have printed between the last read and its
            // end.
            self.ended = self.files.read_outcome()?.is_some() || self.launcher_vanished()?;
            if !self.ended {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }

    fn launcher_vanished(&self) -> io::Result<bool> {
        // A started attempt whose lock is free has lost its launcher. Without the mark, the
        // launcher may not have taken its lock yet.
        Ok(self.files.started() && self.files.try_lock()?.is_some())
    }

    async fn read(&mut self) -> io::Result<Option<Bytes>> {
        if self.file.is_none() {
            self.file = open(&self.files.log(), self.offset).await?;
        }
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let mut bytes = vec![0; CHUNK];
        let read = file.read(&mut bytes).await?;
        bytes.truncate(read);
        Ok((read > 0).then(|| Bytes::from(bytes)))
    }
}

async fn open(path: &Path, offset: u64) -> io::Result<Option<fs::File>> {
    match open_no_follow(path).map(fs::File::from_std) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(offset)).await?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
