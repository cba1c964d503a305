//! Content of other stores: brought before the command, taken back after it, by the server.
//!
//! Containers get no keys and need no way to the store, which on a laptop listens where they cannot
//! reach it.

use std::path::{Path, PathBuf};

use ferroflow_artifacts::stores::Stores;
use ferroflow_artifacts::{safe_fs, transfer};
use ferroflow_launcher::{AttemptSpec, Failure, FailureReason, Outputs, record_stamps};

use super::{inputs, objects};
use crate::fetch::transfer_failure;

/// Where a path of the container is, outside.
pub(super) fn host_path(dir: &Path, path: &Path) -> PathBuf {
    let inner = path.strip_prefix("/").unwrap_or(path);
    objects::content_dir(dir).join(inner)
}

/// Brings the inputs that are neither files of this machine nor in images.
pub(super) async fn fetch(stores: &Stores, spec: &AttemptSpec, dir: &Path) -> Result<(), Failure> {
    for input in spec.inputs.iter().filter(|input| input.image().is_none()) {
        let to = host_path(dir, &input.path);
        transfer::fetch(stores, &input.uri, &to, input.digest.as_deref())
            .await
            .map_err(|error| transfer_failure(&format!("fetch {}", input.uri), &error))?;
    }
    Ok(())
}

/// Whether outputs go to another store.
pub(super) fn has_remote_outputs(spec: &AttemptSpec) -> bool {
    spec.outputs()
        .any(|output| objects::scheme(&output.path).is_some())
}

/// Puts outputs where their URIs say, and notes what they look like there. May be repeated.
pub(super) async fn upload_outputs(
    stores: &Stores,
    spec: &AttemptSpec,
    dir: &Path,
    outputs: &mut Outputs,
) -> Result<(), Failure> {
    for output in spec.outputs() {
        if objects::scheme(&output.path).is_none() {
            continue;
        }
        let from = host_path(dir, &output.path);
        // Not `exists`: a link whose target is not here led to what only the container could see.
        // It is no missing output, and is refused below.
        if from.symlink_metadata().is_err() {
            continue;
        }
        inputs::check_stays_inside(&from, &objects::content_dir(dir)).map_err(|problem| {
            let message = format!("the output {}: {problem}", output.name);
            Failure::new(FailureReason::Transfer, message)
        })?;
        let what = format!("put output artifact {} at {}", output.name, output.uri);
        let place = stores
            .open(&output.uri)
            .map_err(|error| transfer_failure(&what, &error.into()))?;
        transfer::upload(&from, &place)
            .await
            .map_err(|error| transfer_failure(&what, &error))?;
    }
    record_stamps(stores, spec, outputs)
        .await
        .map_err(|error| transfer_failure("look at what was put into the store", &error))
}

/// Removes the copies of this machine.
pub(super) fn remove_copies(dir: &Path) {
    let content = objects::content_dir(dir);
    if let Err(error) = safe_fs::remove(&content) {
        tracing::warn!(content = %content.display(), %error, "copies are left behind");
    }
}
