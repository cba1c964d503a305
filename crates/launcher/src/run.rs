//! The launcher's life: once per attempt, from the spec to the outcome.

use std::fs::File;
use std::io;
use std::path::Path;

use ferroflow_types::Timestamp;
use ferroflow_types::time::{Clock as _, SystemClock};

use crate::watchdog_channel::WatchdogChannel;
use crate::{
    AttemptFiles, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome, Outputs, collect,
    command, leftovers, mounts,
};

/// What is around a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchMode {
    /// This machine: a clean environment, limits, a folder of its own, output to the log only.
    Machine,
    /// A container of its own: its environment, limits and folder are the container's, and output
    /// goes to the container's as well.
    Container,
    /// A container that was started before anybody knew what for: like [`Self::Container`], with
    /// the attempt's environment on top of its own.
    WarmContainer,
}

impl LaunchMode {
    /// Whether the image is the task's own.
    pub(crate) fn has_image(self) -> bool {
        self != Self::Machine
    }
}

/// Runs the attempt in `dir` on this machine and writes its outcome; see [`launch_with`]. SIGTERM ends
/// the command.
///
/// # Errors
/// Only when not even an outcome can be written.
pub fn launch(dir: &Path) -> io::Result<()> {
    let prepared = Prepared::of(dir)?;
    // Before this process enters a user namespace: from there it could not look into processes that
    // another launcher left in a namespace of its own.
    let Some(claim) = Claim::take(dir, &prepared.spec)? else {
        return Ok(());
    };
    let prepared = prepared.and_then(|spec| {
        claim.may_start.clone()?;
        let what = "its inputs cannot be mounted read-only (set processes.inputs to \"copy\")";
        mounts::mount_read_only(&spec.read_only).map_err(|error| Failure::of_io(what, &error))
    });
    // After the mounts: only a process of one thread can enter a user namespace, and this starts
    // another.
    let eviction_message = "its launcher was told to end (a shutdown, or somebody ended it)";
    let channel = WatchdogChannel::from_signals(eviction_message)?;
    claim.run(LaunchMode::Machine, channel, prepared, |_, r| r)
}

/// What is to be run, with the folders of its outputs made.
pub(crate) struct Prepared {
    spec: AttemptSpec,
    ready: Result<(), Failure>,
}

impl Prepared {
    /// The attempt in `dir`.
    ///
    /// # Errors
    /// When there is no spec that can be read. What else is wrong is for the outcome.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let spec = AttemptFiles::new(dir)
            .read_spec()?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no spec.json"))?;
        let ready = collect::prepare(&spec);
        Ok(Self { spec, ready })
    }

    fn and_then(self, more: impl FnOnce(&AttemptSpec) -> Result<(), Failure>) -> Self {
        let Self { spec, ready } = self;
        let ready = ready.and_then(|()| more(&spec));
        Self { spec, ready }
    }
}

/// An attempt that this launcher has and no other.
struct Claim {
    files: AttemptFiles,
    lock: File,
    started_at: Timestamp,
    /// Whether its command may be started.
    may_start: Result<(), Failure>,
}

impl Claim {
    /// Takes the attempt in `dir`; `None` when another launcher has it, or when there is an outcome.
    ///
    /// Where the command was started before, nobody can know what it did, and running it again is
    /// not for a launcher to decide: what is left of it is ended, and that is the outcome.
    ///
    /// # Errors
    /// When the attempt's files cannot be read.
    fn take(dir: &Path, spec: &AttemptSpec) -> io::Result<Option<Self>> {
        let files = AttemptFiles::new(dir);
        let Some(lock) = files.try_lock()? else {
            return Ok(None);
        };
        if files.read_outcome()?.is_some() {
            return Ok(None);
        }
        let started_at = SystemClock.now();
        // The room for the outcome first: a command whose end could not be told must not begin.
        let may_start = match files.reserve().and_then(|()| files.mark_started()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost_failure(spec, &files)),
            Err(error) => Err(Failure::of_io("cannot begin", &error)),
        };
        Ok(Some(Self {
            files,
            lock,
            started_at,
            may_start,
        }))
    }

    /// Runs the attempt, if all is ready, and writes as its outcome what `map_result` returns.
    ///
    /// # Errors
    /// Only when not even an outcome can be written.
    fn run(
        self,
        mode: LaunchMode,
        channel: WatchdogChannel,
        Prepared { spec, ready }: Prepared,
        map_result: impl FnOnce(&AttemptSpec, Result<Outputs, Failure>) -> Result<Outputs, Failure>,
    ) -> io::Result<()> {
        // Only now: a launcher that gets SIGTERM before it handles it would end without an outcome.
        AttemptFiles::write_launcher(&self.lock)?;
        let ready = self.may_start.and(ready);
        let result = ready.and_then(|()| run_attempt(&spec, &self.files, mode, channel));
        write_outcome(&self.files, self.started_at, map_result(&spec, result))
    }
}

/// Runs the attempt in `dir`, if all is ready, and writes as its outcome what `map_result` returns.
/// Does nothing when another launcher has it; see [`Claim::take`].
///
/// # Errors
/// Only when not even an outcome can be written.
pub(crate) fn launch_with(
    dir: &Path,
    mode: LaunchMode,
    channel: WatchdogChannel,
    prepared: Prepared,
    map_result: impl FnOnce(&AttemptSpec, Result<Outputs, Failure>) -> Result<Outputs, Failure>,
) -> io::Result<()> {
    match Claim::take(dir, &prepared.spec)? {
        Some(claim) => claim.run(mode, channel, prepared, map_result),
        None => Ok(()),
    }
}

/// What is said of a command that was started by another launcher, once nothing of it is left.
fn lost_failure(spec: &AttemptSpec, files: &AttemptFiles) -> Failure {
    match leftovers::end_leftovers(files, &spec.key) {
        Ok(()) => Failure::new(
            FailureReason::Lost,
            "its launcher vanished while the command ran (a reboot, or out of memory)",
        ),
        Err(error) => Failure::new(
            FailureReason::ProcessesLeft,
            format!("its launcher vanished while the command ran: {error}"),
        ),
    }
}

fn run_attempt(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    mode: LaunchMode,
    channel: WatchdogChannel,
) -> Result<Outputs, Failure> {
    if mode.has_image() {
        collect::link(&spec.links)?;
    }
    command::execute(spec, files, mode, channel)?;
    collect::collect(spec).map_err(|mut failure| {
        failure.log_tail = files.log_tail();
        failure
    })
}

fn write_outcome(
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
