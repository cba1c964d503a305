//! Runs a user's command beside it: prepares, executes, collects, reports.
//!
//! One launcher per attempt, a small process in a session of its own. It outlives the server: a
//! server that is killed finds, when it comes back, either a launcher at work or its outcome.
//!
//! ```text
//! <attempt dir>/
//!   spec.json     what to do                     (written by the runtime)
//!   lock          held while the launcher lives  (with its process number, and when it began)
//!   started       made just before the command   (exclusively: it never runs twice)
//!   cgroup        where the control group of what the command started is, if there is one
//!   stop          somebody asked for the end
//!   log.txt       what the command prints
//!   outcome.json  how it ended, written whole or not at all
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`key`] | which attempt |
//! | [`spec`] | what to do |
//! | [`outcome`] | what came of it |
//! | [`run`] | the launcher's life |
//! | `exec_limits` | what a command is given, within the kernel's limits |
//! | `command` | one command, its limits and its end |
//! | `watchdog_channel` | how it is made to end before that |
//! | `process_tree` | everything that it started, ended and reaped |
//! | `control_group` | the same by the kernel's means, where they are there |
//! | [`end_leftovers`] | the same for a launcher that was killed |
//! | `cause` | why a command failed, out of its log |
//! | [`mounts`] | what a command may not change |
//! | `collect` | the files that it left |
//! | [`kfp`] | what KFP asks for beside a command that runs |
//! | [`remote`] | an attempt's files in an object store |
//! | [`pod`] | the launcher inside a pod |
//! | [`runtime_endpoint`] | the way from a pod to the runtime that made it |
//! | [`container`] | the launcher inside a container of this machine |
//!
//! No async and no argument parser here: it is started for every attempt and must start fast. Only
//! [`pod`] is async: it brings what the command needs from an object store and takes back what the
//! command made.
#![warn(missing_docs)]

mod cause;
#[cfg(feature = "pod")]
mod cgroup;
mod collect;
mod command;
#[cfg(feature = "pod")]
pub mod container;
mod control_group;
mod exec_limits;
mod files;
pub mod key;
pub mod kfp;
mod leftovers;
pub mod mounts;
pub mod outcome;
#[cfg(feature = "pod")]
pub mod pod;
mod process_tree;
#[cfg(feature = "pod")]
pub mod remote;
pub mod run;
#[cfg(feature = "pod")]
pub mod runtime_endpoint;
pub mod spec;
mod stamps;
mod watchdog_channel;

/// What a launcher of this machine is started with: an attempt's folder, or
/// [`mounts::TRY_READ_ONLY`] and folders.
pub fn main(arguments: &[std::ffi::OsString]) -> std::process::ExitCode {
    use std::process::ExitCode;
    let result = match arguments {
        [dir] => launch(dir.as_ref()),
        [first, folders @ ..] if first == mounts::TRY_READ_ONLY => mounts::try_read_only(folders),
        // The Docker runtime takes this code for a launcher of another version.
        _ => return ExitCode::from(2),
    };
    // The runtime finds no outcome of one that fails and says that the launcher vanished.
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The code with which a launcher in a pod ends when it could write no outcome, because the store was
/// away for longer than its retry timeout; the error is in the container's termination message.
pub const NO_OUTCOME_EXIT_CODE: u8 = 75;

pub use files::{AttemptFiles, open_no_follow};
pub use key::{AttemptKey, Domain, OwnerKey};
pub use leftovers::{ATTEMPT_VARIABLE, end_leftovers};
pub use mounts::ReadOnly;
pub use outcome::{
    AttemptResult, Failure, FailureReason, Outcome, Outputs, ProducedArtifact, is_storage_full,
};
pub use run::{LaunchMode, launch};
pub use spec::{
    AttemptSpec, InputArtifact, InputLink, Limits, MODELS, OutputArtifact, Resources, Workspace,
};
pub use stamps::record_stamps;
