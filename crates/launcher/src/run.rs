//! The launcher's life: once per attempt, from the spec to the report.

use std::io;
use std::path::Path;

use ferroflow_types::Timestamp;
use ferroflow_types::time::{Clock as _, SystemClock};

use crate::{
    AttemptFiles, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome, Outputs, collect,
    command,
};

/// What is around a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surroundings {
    /// This machine: a clean environment, limits, a folder of its own, output to the log only.
    Machine,
    /// A container of its own: its environment, limits and folder are the container's, and output
    /// goes to the container's as well.
    Container,
    /// A container that was started before anybody knew what for: like [`Self::Container`], with
    /// the attempt's environment on top of its own.
    WarmContainer,
}

impl Surroundings {
    /// Whether the image is the task's own.
    pub(crate) fn has_image(self) -> bool {
        self != Self::Machine
    }
}

/// Runs the attempt in `dir` on this machine and writes its report; see [`launch_in`].
pub fn launch(dir: &Path) -> io::Result<()> {
    launch_in(dir, Surroundings::Machine)
}

/// Runs the attempt in `dir` and writes its report; see [`launch_with`].
///
/// # Errors
/// Only when not even a report can be written.
pub fn launch_in(dir: &Path, around: Surroundings) -> io::Result<()> {
    launch_with(dir, around, |_, result| result)
}

/// Runs the attempt in `dir` and writes its report, after `look` had its say about the result.
///
/// Does nothing when another launcher has it, or when its command was started before: then nobody
/// can know what the command did, and running it again is not for a launcher to decide.
///
/// # Errors
/// Only when not even a report can be written.
pub(crate) fn launch_with(
    dir: &Path,
    around: Surroundings,
    look: impl FnOnce(&AttemptSpec, Result<Outputs, Failure>) -> Result<Outputs, Failure>,
) -> io::Result<()> {
    let files = AttemptFiles::new(dir);
    let Some(_lock) = files.try_lock()? else {
        return Ok(());
    };
    if files.read_outcome()?.is_some() {
        return Ok(());
    }
    let Some(spec) = files.read_spec()? else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "there is no spec.json",
        ));
    };
    let started_at = SystemClock.now();
    let begun = files.reserve().and_then(|()| files.mark_started());
    let result = match begun {
        Ok(true) => attempt(&spec, &files, around),
        Ok(false) => Err(Failure::new(
            FailureReason::Lost,
            "its launcher vanished while the command ran (a reboot, or out of memory)",
        )),
        Err(error) => Err(command::of_io("cannot begin", &error)),
    };
    report(&files, started_at, look(&spec, result))
}

fn attempt(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    around: Surroundings,
) -> Result<Outputs, Failure> {
    collect::prepare(spec)?;
    if around.has_image() {
        collect::link(&spec.links)?;
    }
    command::execute(spec, files, around)?;
    collect::collect(&spec.outputs).map_err(|mut failure| {
        failure.log_tail = files.log_tail();
        failure
    })
}

fn report(
    files: &AttemptFiles,
    started_at: Timestamp,
    result: Result<Outputs, Failure>,
) -> io::Result<()> {
    let result = match result {
        Ok(outputs) => AttemptResult::Succeeded(outputs),
        Err(failure) => AttemptResult::Failed(failure),
    };
    files.write_outcome(&Outcome {
        started_at,
        finished_at: SystemClock.now(),
        result,
    })
}
