//! Attempts that bring content to the folder that a run's tasks share. Where that is a folder of this
//! machine, the server does it itself.

use std::io;

use ferroflow_artifacts::stores::Stores;
use ferroflow_artifacts::transfer::{self, TransferError};
use ferroflow_launcher::{
    AttemptFiles, AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome, Outputs,
};
use ferroflow_types::error::chain;
use ferroflow_types::time::{Clock as _, SystemClock};

use crate::RuntimeError;
use crate::folders::{of_io, unless_stopped};

/// Brings every input and writes the report. May be repeated.
///
/// # Errors
/// When a store is away, and when no report can be written.
pub(crate) async fn run(
    stores: &Stores,
    spec: &AttemptSpec,
    files: &AttemptFiles,
) -> Result<(), RuntimeError> {
    let key = spec.key;
    std::fs::create_dir_all(files.dir()).map_err(of_io(&key, "make its folder"))?;
    let started_at = SystemClock.now();
    let brought = unless_stopped(files, bring(stores, spec)).await;
    let result = match brought.and_then(|brought| brought) {
        Ok(()) => AttemptResult::Succeeded(Outputs::default()),
        Err(failure) if failure.reason == FailureReason::StoreAway => {
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

async fn bring(stores: &Stores, spec: &AttemptSpec) -> Result<(), Failure> {
    for input in &spec.inputs {
        let digest = input.digest.as_deref();
        let brought = transfer::fetch(stores, &input.uri, &input.path, digest).await;
        let there = brought.map_err(|error| failed(&format!("fetch {}", input.uri), &error))?;
        if !there {
            let message = format!("{} does not exist", input.uri);
            return Err(Failure::new(FailureReason::Transfer, message));
        }
    }
    Ok(())
}

/// What a transfer that did not work means for the attempt.
pub(crate) fn failed(what: &str, error: &TransferError) -> Failure {
    let full = matches!(error, TransferError::File { source, .. }
        if source.kind() == io::ErrorKind::StorageFull);
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
        key: *key,
        what,
        source: io::Error::other(failure.message),
    }
}
