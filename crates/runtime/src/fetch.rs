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
use ferroflow_artifacts::{digest, safe_fs};
use ferroflow_launcher::{
    AttemptFiles, AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome, Outputs,
    is_storage_full,
};
use ferroflow_types::error::chain;
use ferroflow_types::time::{Clock as _, SystemClock};

use crate::RuntimeError;
use crate::folders::{of_io, unless_stopped};

/// How content of this machine is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkHandling {
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
    links: LinkHandling,
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
    let fetched = unless_stopped(files, fetch_inputs(stores, spec, files, links, &lock)).await;
    let result = match fetched.and_then(|fetched| fetched) {
        Ok(()) => AttemptResult::Succeeded(Outputs::default()),
        Err(failure) if failure.reason == FailureReason::StoreAway => {
            // Without an outcome the attempt is not over: the next `ensure` fetches again.
            return Err(store_unavailable(&key, "bring its inputs", failure));
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
pub(crate) async fn wait_until_unlocked(
    key: &AttemptKey,
    files: &AttemptFiles,
) -> Result<(), RuntimeError> {
    let files = files.clone();
    tokio::task::spawn_blocking(move || files.wait_unlocked())
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(of_io(key, "wait for its content"))
}

async fn fetch_inputs(
    stores: &Stores,
    spec: &AttemptSpec,
    files: &AttemptFiles,
    links: LinkHandling,
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
            transfer_failure(
                &format!("bring {uri}"),
                &TransferError::File {
                    path,
                    source: error,
                },
            )
        };
        std::fs::create_dir_all(folder).map_err(of_io)?;
        transfer::discard(&staged).map_err(of_io)?;
        let exists = match digest::local_path(uri) {
            Some(from) => copy(from, staged.clone(), links, Arc::clone(lock))
                .await
                .map_err(of_io)?,
            None => transfer::fetch(stores, uri, &staged, input.digest.as_deref())
                .await
                .map_err(|error| transfer_failure(&format!("fetch {uri}"), &error))?,
        };
        if !exists {
            return Err(input.missing_failure());
        }
        // A path that is not in the folder stays absolute, and `move_into` refuses it.
        let inner = input.path.strip_prefix(folder).unwrap_or(&input.path);
        safe_fs::move_into(&staged, folder, inner).map_err(of_io)?;
    }
    Ok(())
}

/// Cancels a copy when nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Copies content of this machine; the attempt is locked until that has ended.
async fn copy(
    from: PathBuf,
    to: PathBuf,
    links: LinkHandling,
    lock: Arc<File>,
) -> io::Result<bool> {
    let canceled = Arc::new(AtomicBool::new(false));
    let _cancel = CancelOnDrop(Arc::clone(&canceled));
    let work = move || {
        let _lock = lock;
        if from.symlink_metadata().is_err() {
            return Ok(false);
        }
        match links {
            LinkHandling::Followed => digest::copy(&from, &to),
            LinkHandling::Kept => {
                safe_fs::copy_keeping_links(&from, &to, &|| !canceled.load(Ordering::Relaxed))
            }
        }?;
        Ok(true)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// What a transfer that did not work means for the attempt.
pub(crate) fn transfer_failure(what: &str, error: &TransferError) -> Failure {
    let full = matches!(error, TransferError::File { source, .. } if is_storage_full(source));
    let reason = match (error.is_away(), full) {
        (true, _) => FailureReason::StoreAway,
        (false, true) => FailureReason::NoSpace,
        (false, false) => FailureReason::Transfer,
    };
    Failure::new(reason, format!("cannot {what}: {}", chain(error)))
}

/// What a store that is away means when asking again is enough.
pub(crate) fn store_unavailable(
    key: &AttemptKey,
    what: &'static str,
    failure: Failure,
) -> RuntimeError {
    RuntimeError::Unavailable {
        key: key.clone(),
        what,
        source: io::Error::other(failure.message),
    }
}
