//! Content of other stores: brought before the command, taken back after it, by the server.
//!
//! Containers get no keys and need no way to the store, which on a laptop listens where they cannot
//! reach it.

use std::io;
use std::path::{Path, PathBuf};

use ferroflow_artifacts::stores::Stores;
use ferroflow_artifacts::transfer;
use ferroflow_launcher::{AttemptSpec, Failure, FailureReason};

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
    let mut outputs = spec.outputs.artifacts.iter();
    outputs.any(|output| objects::scheme(&output.path).is_some())
}

/// Puts outputs where their URIs say. May be repeated.
pub(super) async fn give(stores: &Stores, spec: &AttemptSpec, dir: &Path) -> Result<(), Failure> {
    let content = objects::content(dir);
    let out = inputs::leading_out(&content).map_err(|error| {
        let message = format!("cannot look at {}: {error}", content.display());
        Failure::new(FailureReason::Transfer, message)
    })?;
    if let Some(link) = out {
        let message = format!(
            "the output {} is a link to what is not an output: copy the content instead",
            link.strip_prefix(&content).unwrap_or(&link).display()
        );
        return Err(Failure::new(FailureReason::Transfer, message));
    }
    for output in &spec.outputs.artifacts {
        if objects::scheme(&output.path).is_none() {
            continue;
        }
        let what = format!("put output artifact {} at {}", output.name, output.uri);
        let place = stores
            .open(&output.uri)
            .map_err(|error| failed(&what, &error.into()))?;
        transfer::upload(&outside(dir, &output.path), &place)
            .await
            .map_err(|error| failed(&what, &error))?;
    }
    Ok(())
}

/// Removes the copies of this machine.
pub(super) fn forget(dir: &Path) {
    let content = objects::content(dir);
    match std::fs::remove_dir_all(&content) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(content = %content.display(), %error, "copies are left behind");
        }
        _ => {}
    }
}
