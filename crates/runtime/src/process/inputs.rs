//! How processes of this machine reach their inputs: where they are, but read-only, or as copies.
//!
//! A step that could write to its input would change what other steps, later runs and cached results
//! read. Where the system permits it the launcher mounts inputs, and all that is kept of other tasks,
//! read-only at their own paths ([`ReadOnly`]). Elsewhere every attempt gets copies in its own folder,
//! which share their blocks with the original on file systems that can do that (btrfs, XFS).

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use ferroflow_artifacts::transfer::TransferError;
use ferroflow_artifacts::{digest, safe_fs};
use ferroflow_launcher::mounts::TRY_READ_ONLY;
use ferroflow_launcher::{AttemptSpec, Failure, InputArtifact, ReadOnly};
use tokio::process::Command;

use crate::fetch::transfer_failure;

/// How processes reach their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputAccess {
    /// Where they are, mounted read-only.
    Mounted,
    /// As copies of the attempt's own.
    Copied,
}

impl InputAccess {
    /// Mounted, if a launcher can do that to each of `folders`, which are there.
    pub async fn detect(launcher: &[OsString], folders: &[&Path]) -> Self {
        if can_mount_read_only(launcher, folders).await {
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

async fn can_mount_read_only(launcher: &[OsString], folders: &[&Path]) -> bool {
    let Some((program, args)) = launcher.split_first() else {
        return false;
    };
    let ended = Command::new(program)
        .args(args)
        .arg(TRY_READ_ONLY)
        .args(folders)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    ended.is_ok_and(|status| status.success())
}

/// What is read-only for an attempt: its inputs, and below `artifacts` all but its own outputs.
/// `own` are folders that are its own wherever they are.
pub(super) fn read_only(spec: &AttemptSpec, artifacts: Option<&Path>, own: &[&Path]) -> ReadOnly {
    let folders = spec.outputs().filter_map(|output| output.path.parent());
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
    let copies: Vec<_> = spec.inputs.iter().filter_map(local_copy).collect();
    for (from, to) in copies {
        let what = format!("copy the input {}", from.display());
        let path = to.clone();
        let result = tokio::task::spawn_blocking(move || copy_if_absent(&from, &to)).await;
        let result = result.map_err(io::Error::other).flatten();
        result.map_err(|source| transfer_failure(&what, &TransferError::File { path, source }))?;
    }
    Ok(())
}

/// Copies an input unless that was done before. It appears under its name when all of it is there: a
/// server that is killed meanwhile leaves a part under another one.
fn copy_if_absent(from: &Path, to: &Path) -> io::Result<()> {
    match from.symlink_metadata() {
        Ok(_) if !to.exists() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => return Ok(()),
    }
    // One that is there was left by a server that was killed.
    let part = safe_fs::with_suffix(to, "part");
    safe_fs::remove(&part)?;
    digest::copy(from, &part)?;
    std::fs::rename(&part, to)
}

fn local_copy(input: &InputArtifact) -> Option<(PathBuf, PathBuf)> {
    Some((digest::local_path(&input.uri)?, input.path.clone()))
}

/// Removes an attempt's copies.
pub(super) fn remove_copies(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "copies of inputs are left behind");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_copy_that_was_cut_off_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("inputs/model"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("a"), "a").unwrap();
        symlink("nowhere", from.join("b")).unwrap();
        assert!(copy_if_absent(&from, &to).is_err(), "it has a dead link");
        fs::remove_file(from.join("b")).unwrap();
        fs::write(from.join("b"), "b").unwrap();

        copy_if_absent(&from, &to).unwrap();

        let content = |path: &Path| digest::of_path(path).unwrap().unwrap();
        assert_eq!(content(&to), content(&from));
        let left = fs::read_dir(to.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "a part is left");
        // What is there already is not copied again.
        fs::write(from.join("b"), "other").unwrap();
        copy_if_absent(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("b")).unwrap(), "b");
    }
}
