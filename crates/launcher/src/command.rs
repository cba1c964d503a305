//! One command: its process group, its limits, its end.

use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _, pipe};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{AttemptFiles, AttemptSpec, Failure, FailureReason, Limits, Surroundings};

/// How long a group may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the command to its end.
///
/// # Errors
/// Says why it was not started, or how it ended if not with 0.
pub(crate) fn execute(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    around: Surroundings,
) -> Result<(), Failure> {
    if files.stop_asked() {
        return Err(Failure::new(
            FailureReason::Canceled,
            "it was stopped before it began",
        ));
    }
    let (mut child, echo) = start(spec, files, around)?;
    let group = Pid::from_child(&child);
    files
        .write_process(group.as_raw_nonzero().get())
        .map_err(|error| of_io("cannot note the process", &error))?;
    let watchdog = spec
        .limits
        .timeout_ms
        .map(|timeout| Watchdog::start(group, timeout));
    let status = child
        .wait()
        .map_err(|error| of_io("cannot wait for the command", &error))?;
    let timed_out = watchdog.is_some_and(Watchdog::end);
    // Whatever the command left behind in its group ends with it.
    signal_group(group, Signal::KILL);
    if let Some(echo) = echo {
        // It ends with the last writer; what it could not write is lost to readers, not to us.
        let _panicked = echo.join().is_err();
    }
    let stopped = match (timed_out, files.stop_asked()) {
        (true, _) => Some(FailureReason::Timeout),
        (false, true) => Some(FailureReason::Canceled),
        (false, false) => None,
    };
    judge(spec, files, status, stopped)
}

/// Ends a command that takes too long.
struct Watchdog {
    over: mpsc::Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    fn start(group: Pid, timeout_ms: u64) -> Self {
        let (over, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let waited = |time| ended.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            if !waited(Duration::from_millis(timeout_ms)) {
                return false;
            }
            signal_group(group, Signal::TERM);
            if waited(GRACE) {
                signal_group(group, Signal::KILL);
            }
            true
        });
        Self { over, thread }
    }

    /// Stops watching; whether it had to act.
    fn end(self) -> bool {
        drop(self.over);
        self.thread.join().unwrap_or(false)
    }
}

fn signal_group(group: Pid, signal: Signal) {
    // An error means that the group has ended, which is what is wanted.
    let _ended = kill_process_group(group, signal).is_err();
}

type Echo = JoinHandle<()>;

fn start(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    around: Surroundings,
) -> Result<(Child, Option<Echo>), Failure> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(files.log())
        .map_err(|error| of_io("cannot open the log", &error))?;
    let Some((program, args)) = spec.argv.split_first() else {
        return Err(Failure::new(
            FailureReason::StartFailed,
            "there is no command to run",
        ));
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).process_group(0);
    let echo = match around {
        Surroundings::Machine => {
            limit(&spec.limits).map_err(|error| of_io("cannot set its limits", &error))?;
            let errors = log
                .try_clone()
                .map_err(|error| of_io("cannot open the log", &error))?;
            command
                .env_clear()
                .envs(spec.env.iter().map(|(name, value)| (name, value)))
                .current_dir(&spec.working_dir)
                .stdout(log)
                .stderr(errors);
            None
        }
        Surroundings::Container | Surroundings::WarmContainer => {
            let (reader, writer) = pipe().map_err(|error| of_io("cannot open a pipe", &error))?;
            let errors = writer
                .try_clone()
                .map_err(|error| of_io("cannot open a pipe", &error))?;
            command.stdout(writer).stderr(errors);
            for (name, _) in std::env::vars_os() {
                if name.as_encoded_bytes().starts_with(OWN.as_bytes()) {
                    command.env_remove(name);
                }
            }
            if around == Surroundings::WarmContainer {
                command.envs(spec.env.iter().map(|(name, value)| (name, value)));
            }
            Some(std::thread::spawn(move || echo(reader, log)))
        }
    };
    let child = command
        .spawn()
        .map_err(|error| start_failed(spec, around, &error))?;
    Ok((child, echo))
}

/// Variables that are meant for the launcher and not for the command.
const OWN: &str = "FERROFLOW_";

/// Copies what the command prints to the log and to the container's own output.
fn echo(mut from: PipeReader, mut log: File) {
    let mut bytes = vec![0; 64 * 1024];
    let mut out = io::stdout().lock();
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        // A full disk or a reader that is gone must not stop the command.
        let _logged = log.write_all(&bytes[..read]).is_ok();
        let _shown = out
            .write_all(&bytes[..read])
            .and_then(|()| out.flush())
            .is_ok();
    }
}

/// Limits of the launcher itself, which the command inherits; the launcher needs next to nothing.
fn limit(limits: &Limits) -> io::Result<()> {
    if let Some(millis) = limits.cpu_millis {
        keep_to_cores(millis)?;
    }
    if let Some(bytes) = limits.memory_bytes {
        // RLIMIT_DATA counts what a program allocates; RLIMIT_AS would count what it maps, and
        // numeric libraries map far more than they use.
        let maximum = getrlimit(Resource::Data).maximum;
        let current = maximum.map_or(bytes, |maximum| maximum.min(bytes));
        setrlimit(
            Resource::Data,
            Rlimit {
                current: Some(current),
                maximum,
            },
        )?;
    }
    Ok(())
}

/// A command may use as many cores as its limit rounds up to. Which ones differs from launcher to
/// launcher, so that limited commands spread over the machine.
fn keep_to_cores(millis: u64) -> io::Result<()> {
    let wanted = usize::try_from(millis.div_ceil(1000))
        .unwrap_or(usize::MAX)
        .max(1);
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    if wanted >= cores.len() {
        return Ok(());
    }
    let mut chosen = CpuSet::new();
    let first = std::process::id() as usize;
    for at in 0..wanted {
        chosen.set(cores[(first + at) % cores.len()]);
    }
    sched_setaffinity(None, &chosen)?;
    Ok(())
}

fn judge(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    status: ExitStatus,
    stopped: Option<FailureReason>,
) -> Result<(), Failure> {
    let (reason, message) = match (stopped, status.code(), status.signal()) {
        (None, Some(0), _) => return Ok(()),
        (Some(FailureReason::Timeout), ..) => {
            let limit = spec.limits.timeout_ms.unwrap_or(0);
            let seconds = Duration::from_millis(limit).as_secs_f64();
            (
                FailureReason::Timeout,
                format!("it took longer than its limit of {seconds} s"),
            )
        }
        (Some(reason), ..) => (reason, "it was stopped".to_owned()),
        (None, Some(code), _) => (FailureReason::ExitCode, format!("exit code {code}")),
        (None, None, signal) => {
            let signal = signal.unwrap_or(0);
            let hint = match (signal, spec.limits.memory_bytes) {
                (9, Some(bytes)) => format!(" (its memory limit is {bytes} bytes)"),
                _ => String::new(),
            };
            (
                FailureReason::Signal,
                format!("ended by signal {signal}{hint}"),
            )
        }
    };
    let log_tail = files.log_tail();
    Err(Failure {
        reason,
        message,
        exit_code: status.code(),
        log_tail,
    })
}

fn start_failed(spec: &AttemptSpec, around: Surroundings, error: &io::Error) -> Failure {
    let program = spec.argv.first().map_or("", String::as_str);
    let image = &spec.image;
    if error.kind() == io::ErrorKind::NotFound && around.has_image() {
        return Failure::new(
            FailureReason::StartFailed,
            format!("there is no program {program:?} in the image {image}: use another image"),
        );
    }
    if error.kind() == io::ErrorKind::NotFound {
        return Failure::new(
            FailureReason::StartFailed,
            format!(
                "there is no program {program:?} on this machine; it may be part of the image \
                 {image}, which local processes do not have: install it, or use `--runtime docker`"
            ),
        );
    }
    of_io(&format!("cannot start {program:?}"), error)
}

/// A failure of the file system or the kernel.
pub(crate) fn of_io(what: &str, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FailureReason::NoSpace,
        _ => FailureReason::StartFailed,
    };
    Failure::new(reason, format!("{what}: {error}"))
}
