//! Runs a user's command beside it: prepares, executes, collects, reports.
//!
//! One launcher per attempt, a small process in a session of its own. It outlives the server: a
//! server that is killed finds, when it comes back, either a launcher at work or its report.
//!
//! ```text
//! <attempt dir>/
//!   spec.json     what to do                     (written by the runtime)
//!   lock          held while the launcher lives
//!   started       made just before the command   (exclusively: it never runs twice)
//!   process       the command's process group
//!   stop          somebody asked for the end
//!   log.txt       what the command prints
//!   outcome.json  the report, written whole or not at all
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`spec`] | what to do |
//! | [`outcome`] | what came of it |
//! | [`run`] | the launcher's life |
//! | `command` | one process group, its limits and its end |
//! | `collect` | output parameters and artifacts |
//!
//! No async and no argument parser here: it is started for every attempt and must start fast.
#![warn(missing_docs)]

mod collect;
mod command;
mod files;
pub mod outcome;
pub mod run;
pub mod spec;

pub use files::AttemptFiles;
pub use outcome::{AttemptResult, Failure, FailureReason, Outcome, Outputs, ProducedArtifact};
pub use run::launch;
pub use spec::{
    AttemptKey, AttemptSpec, Limits, OutputArtifact, OutputParameter, OutputSpec, ParameterKind,
};
