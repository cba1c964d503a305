//! Content of other stores: brought before the command, taken back after it, by the server.
//!
//! Containers get no keys and need no way to the store, which on a laptop listens where they cannot
//! reach it.

use std::path::{Path, PathBuf};

use ferroflow_artifacts::stores::Stores;
use ferroflow_artifacts::{place, transfer};
use ferroflow_launcher::{AttemptSpec, Failure, FailureReason, Outputs, note_stamps};

use super::{inputs, objects};
use crate::fetch::failed;

/// Where a path of the container is, outside.
pub(super) fn outside(dir: &Path, path: &Path) -> PathBuf {
    let inner = path.strip_prefix("/").unwrap_or(path);
    objects::content(dir).join(inner)
}

/// Brings the inputs that are neither files of this machine nor in images.
pub(super) async fn fetch(stores: &Stores, spec: &AttemptSpec, dir: &Path) -> Result<(), Failure> {
    for input in spec.inputs.iter().filter(|input| input.image().is_none()) {
        let to = outside(dir, &input.path);
        transfer::fetch(stores, &input.uri, &to, input.digest.as_deref())
            .await
            .map_err(|error| failed(&format!("fetch {}", input.uri), &error))?;
    }
    Ok(())
}

/// Whether outputs go to another store.
pub(super) fn gives(spec: &AttemptSpec) -> bool {
    spec.outputs()
        .any(|output| objects::scheme(&output.path).is_some())
}

/// Puts outputs where their URIs say, and notes what they look like there. May be repeated.
pub(super) async fn give(
    stores: &Stores,
    spec: &AttemptSpec,
    dir: &Path,
    outputs: &mut Outputs,
) -> Result<(), Failure> {
    for output in spec.outputs() {
        if objects::scheme(&output.path).is_none() {
            continue;
        }
        let from = outside(dir, &output.path);
        // Not `exists`: a link whose target is not here led to what only the container could see.
        // It is no missing output, and is refused below.
        if from.symlink_metadata().is_err() {
            continue;
        }
        inputs::stays(&from, &objects::content(dir)).map_err(|problem| {
            let message = format!("the output {}: {problem}", output.name);
            Failure::new(FailureReason::Transfer, message)
        })?;
        let what = format!("put output artifact {} at {}", output.name, output.uri);
        let place = stores
            .open(&output.uri)
            .map_err(|error| failed(&what, &error.into()))?;
        transfer::upload(&from, &place)
            .await
            .map_err(|error| failed(&what, &error))?;
    }
    note_stamps(stores, spec, outputs)
        .await
        .map_err(|error| failed("look at what was put into the store", &error))
}

/// Removes the copies of this machine.
pub(super) fn forget(dir: &Path) {
    let content = objects::content(dir);
    if let Err(error) = place::remove(&content) {
        tracing::warn!(content = %content.display(), %error, "copies are left behind");
    }
}
