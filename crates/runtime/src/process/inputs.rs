//! How processes of this machine reach their inputs: where they are, but read-only, or as copies.
//!
//! A step that could write to its input would change what other steps, later runs and cached results
//! read. Where the system permits it the launcher mounts inputs, and all that is kept of other tasks,
//! read-only at their own paths ([`ReadOnly`]). Elsewhere every attempt gets copies in its own folder,
//! which share their blocks with the original on file systems that can do that (btrfs, XFS).

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ferroflow_artifacts::digest;
use ferroflow_artifacts::transfer::TransferError;
use ferroflow_launcher::mounts::TRY_READ_ONLY;
use ferroflow_launcher::{AttemptSpec, Failure, InputArtifact, ReadOnly};

use crate::fetch::failed;

/// How processes reach their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// Where they are, mounted read-only.
    Mounted,
    /// As copies of the attempt's own.
    Copied,
}

impl Inputs {
    /// Mounted, if a launcher can do that to `folder`.
    pub fn that_work(launcher: &[OsString], folder: &Path) -> Self {
        let tried = try_launcher(launcher, folder);
        if tried {
            Self::Mounted
        } else {
            tracing::info!(
                "inputs cannot be mounted read-only here (neither a mount namespace nor a user \
                 namespace is permitted): every attempt gets copies"
            );
            Self::Copied
        }
    }
}

fn try_launcher(launcher: &[OsString], folder: &Path) -> bool {
    let Some((program, words)) = launcher.split_first() else {
        return false;
    };
    let ended = Command::new(program)
        .args(words)
        .arg(TRY_READ_ONLY)
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ended.is_ok_and(|status| status.success())
}

/// What is read-only for an attempt: its inputs, and below `artifacts` all but its own outputs.
/// `own` are folders that are its own wherever they are.
pub(super) fn read_only(spec: &AttemptSpec, artifacts: Option<&Path>, own: &[&Path]) -> ReadOnly {
    let outputs = spec.outputs.artifacts.iter();
    let folders = outputs.filter_map(|output| output.path.parent());
    let kept = artifacts.map(Path::to_path_buf);
    ReadOnly {
        paths: spec.local_inputs.iter().cloned().chain(kept).collect(),
        except: folders
            .chain(own.iter().copied())
            .map(Path::to_path_buf)
            .collect(),
    }
}

/// Copies inputs of this machine to where the attempt expects them. What is not there stays away: the
/// command decides what that means.
pub(super) async fn copy(spec: &AttemptSpec) -> Result<(), Failure> {
    let copies: Vec<_> = spec.inputs.iter().filter_map(copied).collect();
    for (from, to) in copies {
        let what = format!("copy the input {}", from.display());
        let path = to.clone();
        let work = move || match from.symlink_metadata() {
            Ok(_) if !to.exists() => digest::copy(&from, &to),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(io::Error::other).flatten();
        done.map_err(|source| failed(&what, &TransferError::File { path, source }))?;
    }
    Ok(())
}

fn copied(input: &InputArtifact) -> Option<(PathBuf, PathBuf)> {
    Some((digest::local(&input.uri)?, input.path.clone()))
}

/// Removes an attempt's copies.
pub(super) fn forget(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "copies of inputs are left behind");
        }
        _ => {}
    }
}
