//! Attempts that bring content to the folder that a run's tasks share. Where that is a folder of this
//! machine, the server does it itself.
//!
//! Content is brought to the attempt's own folder first, and moved to its place as a whole: other
//! attempts bring and read content there at the same time.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferroflow_artifacts::stores::Stores;
use ferroflow_artifacts::transfer::{self, TransferError};
use ferroflow_artifacts::{digest, place};
use ferroflow_launcher::{
    AttemptFiles, AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome, Outputs,
    no_space,
};
use ferroflow_types::error::chain;
use ferroflow_types::time::{Clock as _, SystemClock};

use crate::RuntimeError;
use crate::folders::{of_io, unless_stopped};

/// How content of this machine is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// What they lead to: commands may read what the server may read.
    Followed,
    /// As links, with none on the way: commands may not. URIs of this machine have none.
    Kept,
}

/// Brings every input and writes the outcome. May be repeated; does nothing while another server is
/// at it.
///
/// # Errors
/// When a store is away, and when no outcome can be written.
pub(crate) async fn run(
    stores: &Stores,
    spec: &AttemptSpec,
    files: &AttemptFiles,
    links: Links,
) -> Result<(), RuntimeError> {
    let key = spec.key.clone();
    std::fs::create_dir_all(files.dir()).map_err(of_io(&key, "make its folder"))?;
    let lock = files.try_lock().map_err(of_io(&key, "take its lock"))?;
    // Shared with the blocking copy, which goes on when this task is aborted: until it has ended,
    // no other server may begin.
    let Some(lock) = lock.map(Arc::new) else {
        return Ok(());
    };
    // `observe` of containers tells by the spec that there is no container to ask, also after a
    // crash.
    files
        .write_spec(spec)
        .map_err(of_io(&key, "write its spec"))?;
    let started_at = SystemClock.now();
    let brought = unless_stopped(files, bring(stores, spec, files, links, &lock)).await;
    let result = match brought.and_then(|brought| brought) {
        Ok(()) => AttemptResult::Succeeded(Outputs::default()),
        Err(failure) if failure.reason == FailureReason::StoreAway => {
            // Without an outcome the attempt is not over: the next `ensure` fetches again.
            return Err(away(&key, "bring its inputs", failure));
        }
        Err(failure) => AttemptResult::Failed(failure),
    };
    let outcome = Outcome {
        started_at,
        finished_at: SystemClock.now(),
        result,
    };
    files
        .write_outcome(&outcome)
        .map_err(of_io(&key, "write its report"))
}

/// Returns when nobody brings content for the attempt.
#[cfg(feature = "docker")]
pub(crate) async fn ended(key: &AttemptKey, files: &AttemptFiles) -> Result<(), RuntimeError> {
    let files = files.clone();
    tokio::task::spawn_blocking(move || files.wait_unlocked())
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(of_io(key, "wait for its content"))
}

async fn bring(
    stores: &Stores,
    spec: &AttemptSpec,
    files: &AttemptFiles,
    links: Links,
    lock: &Arc<File>,
) -> Result<(), Failure> {
    let Some(folder) = &spec.fetch_into else {
        return Ok(());
    };
    let staged = files.dir().join("fetched");
    for input in &spec.inputs {
        let uri = &input.uri;
        let of_io = |error: io::Error| {
            let path = input.path.clone();
            failed(
                &format!("bring {uri}"),
                &TransferError::File {
                    path,
                    source: error,
                },
            )
        };
        std::fs::create_dir_all(folder).map_err(of_io)?;
        transfer::discard(&staged).map_err(of_io)?;
        let there = match digest::local(uri) {
            Some(from) => copy(from, staged.clone(), links, Arc::clone(lock))
                .await
                .map_err(of_io)?,
            None => transfer::fetch(stores, uri, &staged, input.digest.as_deref())
                .await
                .map_err(|error| failed(&format!("fetch {uri}"), &error))?,
        };
        if !there {
            return Err(input.is_missing());
        }
        // A path that is not in the folder stays absolute, and `place` refuses it.
        let inner = input.path.strip_prefix(folder).unwrap_or(&input.path);
        place::place(&staged, folder, inner).map_err(of_io)?;
    }
    Ok(())
}

/// Ends what is copied when nobody waits for it any more.
struct EndsWithMe(Arc<AtomicBool>);

impl Drop for EndsWithMe {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Copies content of this machine; the attempt is locked until that has ended.
async fn copy(from: PathBuf, to: PathBuf, links: Links, lock: Arc<File>) -> io::Result<bool> {
    let ended = Arc::new(AtomicBool::new(false));
    let _ends = EndsWithMe(Arc::clone(&ended));
    let work = move || {
        let _lock = lock;
        if from.symlink_metadata().is_err() {
            return Ok(false);
        }
        match links {
            Links::Followed => digest::copy(&from, &to),
            Links::Kept => place::copy_as_it_is(&from, &to, &|| !ended.load(Ordering::Relaxed)),
        }?;
        Ok(true)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// What a transfer that did not work means for the attempt.
pub(crate) fn failed(what: &str, error: &TransferError) -> Failure {
    let full = matches!(error, TransferError::File { source, .. } if no_space(source));
    let reason = match (error.is_away(), full) {
        (true, _) => FailureReason::StoreAway,
        (false, true) => FailureReason::NoSpace,
        (false, false) => FailureReason::Transfer,
    };
    Failure::new(reason, format!("cannot {what}: {}", chain(error)))
}

/// What a store that is away means when asking again is enough.
pub(crate) fn away(key: &AttemptKey, what: &'static str, failure: Failure) -> RuntimeError {
    RuntimeError::Away {
        key: key.clone(),
        what,
        source: io::Error::other(failure.message),
    }
}
