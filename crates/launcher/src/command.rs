//! One command: its limits, its end, and that of everything that it started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _, pipe};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::control_group::ControlGroup;
use crate::watchdog_channel::{WatchdogChannel, WatchdogMessage};
use crate::{
    ATTEMPT_VARIABLE, AttemptFiles, AttemptKey, AttemptSpec, Failure, FailureReason, LaunchMode,
    Limits, cause, exec_limits, process_tree,
};

/// How long a command may take to end after it was asked to.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// How long a command runs before what it started is put into a control group: many take less time
/// than the move does (`control_group`).
const CGROUP_DELAY: Duration = Duration::from_millis(100);

/// Runs the command until it has ended, and nothing of what it started is left.
///
/// # Errors
/// Says why it was not started, or how it ended if not with 0.
pub(crate) fn execute(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    mode: LaunchMode,
    channel: WatchdogChannel,
) -> Result<(), Failure> {
    if files.stop_requested() {
        return Err(Failure::new(
            FailureReason::Canceled,
            "it was stopped before it began",
        ));
    }
    // Before the command starts: what loses its parent earlier becomes a child of init, and is not
    // found.
    process_tree::adopt_orphans()
        .map_err(|error| Failure::of_io("cannot become a subreaper", &error))?;
    let (child, echo) = start(spec, files, mode)?;
    let eviction_message = channel.eviction_message;
    let command = Pid::from_child(&child);
    let watchdog = Watchdog::start(command, spec, files, channel);
    let status = process_tree::wait_for(command);
    // Whatever the command left is ended before its outputs are collected, so that nothing writes
    // to them any more.
    let (termination, group) = watchdog.end();
    process_tree::kill_and_reap(group.as_ref())?;
    if let Some(echo) = echo {
        // It ends when nobody holds the pipe any more, which is so by now. What it could not write
        // is lost to readers, but says nothing of the command.
        let _panicked = echo.join().is_err();
    }
    let status = status.map_err(|error| Failure::of_io("cannot wait for the command", &error))?;
    // A stop that was asked for is a cancellation, also when the command ended by itself meanwhile.
    let termination = match termination {
        None | Some(TerminationCause::Evicted) if files.stop_requested() => {
            Some(TerminationCause::Canceled)
        }
        termination => termination,
    };
    command_result(spec, files, status, termination, eviction_message)
}

/// Why a command was ended before it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TerminationCause {
    /// It took too long.
    TimedOut,
    /// The launcher was told to end.
    Evicted,
    /// The same, for a cancellation.
    Canceled,
}

/// Ends a command that takes too long, or when it is told to: everything that it started is asked,
/// and killed when it takes longer than [`GRACE_PERIOD`].
struct Watchdog {
    sender: Sender<WatchdogMessage>,
    thread: JoinHandle<(Option<TerminationCause>, Option<ControlGroup>)>,
}

impl Watchdog {
    fn start(
        command: Pid,
        spec: &AttemptSpec,
        files: &AttemptFiles,
        channel: WatchdogChannel,
    ) -> Self {
        let begun = Instant::now();
        let timeout = spec.limits.timeout_ms.map(Duration::from_millis);
        let state = WatchdogState {
            command,
            deadline: timeout.map(|timeout| begun + timeout),
            cgroup_at: Some(begun + CGROUP_DELAY),
            kill_at: None,
            termination: None,
            group: None,
        };
        let (key, files) = (spec.key.clone(), files.clone());
        Self {
            sender: channel.sender,
            thread: std::thread::spawn(move || state.run(&channel.receiver, &files, &key)),
        }
    }

    /// Stops watching; why it had to act, and the control group that it made.
    fn end(self) -> (Option<TerminationCause>, Option<ControlGroup>) {
        // A watchdog that has ended needs no message.
        let _ended = self.sender.send(WatchdogMessage::CommandEnded).is_err();
        self.thread.join().unwrap_or_default()
    }
}

/// What the watchdog waits for.
struct WatchdogState {
    command: Pid,
    deadline: Option<Instant>,
    cgroup_at: Option<Instant>,
    kill_at: Option<Instant>,
    termination: Option<TerminationCause>,
    group: Option<ControlGroup>,
}

impl WatchdogState {
    fn run(
        mut self,
        channel: &Receiver<WatchdogMessage>,
        files: &AttemptFiles,
        key: &AttemptKey,
    ) -> (Option<TerminationCause>, Option<ControlGroup>) {
        loop {
            let next = [self.deadline, self.cgroup_at, self.kill_at];
            let message = match next.into_iter().flatten().min() {
                Some(at) => channel.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => channel.recv().map_err(RecvTimeoutError::from),
            };
            match message {
                Ok(WatchdogMessage::CommandEnded) | Err(RecvTimeoutError::Disconnected) => {
                    return (self.termination, self.group);
                }
                Ok(WatchdogMessage::Terminate) => self.terminate(TerminationCause::Evicted),
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
                    if is_due(self.cgroup_at) {
                        self.cgroup_at = None;
                        self.group = ControlGroup::create_for_descendants(files, key);
                    }
                    if is_due(self.deadline) {
                        self.terminate(TerminationCause::TimedOut);
                    }
                    if is_due(self.kill_at) {
                        self.kill_at = None;
                        signal_all(self.command, Signal::KILL);
                    }
                }
            }
        }
    }

    /// Asks everything to end, once.
    fn terminate(&mut self, cause: TerminationCause) {
        self.deadline = None;
        if self.termination.is_none() {
            self.termination = Some(cause);
            self.kill_at = Some(Instant::now() + GRACE_PERIOD);
            signal_all(self.command, Signal::TERM);
        }
    }
}

/// Signals everything below this process; where that cannot be seen, the command's group.
fn signal_all(command: Pid, signal: Signal) {
    if process_tree::signal_descendants(signal).is_err() {
        // An error means that the group has ended, which is what is wanted.
        let _ended = kill_process_group(command, signal).is_err();
    }
}

type Echo = JoinHandle<()>;

fn start(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    mode: LaunchMode,
) -> Result<(Child, Option<Echo>), Failure> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(files.log())
        .map_err(|error| Failure::of_io("cannot open the log", &error))?;
    let env = environment(spec, mode);
    let prepared = exec_limits::prepare(spec, &env, &files.dir().join("values"))?;
    let Some((program, args)) = prepared.argv.split_first() else {
        return Err(Failure::new(
            FailureReason::StartFailed,
            "there is no command to run",
        ));
    };
    // The file that was found is executed, and the command sees its name as it is written.
    let mut command = Command::new(find_program(program, &env));
    command
        .arg0(program)
        .args(args)
        .env_clear()
        .envs(env)
        .envs(prepared.env)
        .stdin(Stdio::null())
        .process_group(0);
    let echo = match mode {
        LaunchMode::Machine => {
            set_limits(&spec.limits)
                .map_err(|error| Failure::of_io("cannot set its limits", &error))?;
            let errors = log
                .try_clone()
                .map_err(|error| Failure::of_io("cannot open the log", &error))?;
            command
                .current_dir(&spec.working_dir)
                .stdout(log)
                .stderr(errors);
            None
        }
        LaunchMode::Container | LaunchMode::WarmContainer => {
            let (reader, writer) =
                pipe().map_err(|error| Failure::of_io("cannot open a pipe", &error))?;
            let errors = writer
                .try_clone()
                .map_err(|error| Failure::of_io("cannot open a pipe", &error))?;
            command.stdout(writer).stderr(errors);
            Some(std::thread::spawn(move || echo(reader, log)))
        }
    };
    let child = command
        .spawn()
        .map_err(|error| start_failed(spec, mode, &error))?;
    Ok((child, echo))
}

/// Where a program is, by the `PATH` of its environment: one that is started by its path needs no copy
/// of this process (posix_spawn instead of fork), which saves a millisecond. One that is not found is
/// left as it is, and starting it says so.
fn find_program(program: &str, env: &[(OsString, OsString)]) -> PathBuf {
    let path = env.iter().find(|(name, _)| name == "PATH");
    let folders = path
        .iter()
        .flat_map(|(_, path)| std::env::split_paths(path));
    let found = (!program.contains('/')).then(|| {
        let mut files = folders.map(|folder| folder.join(program));
        files.find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
    });
    // The standard library looks for this function when it starts a program in another folder, with
    // a weak symbol, which alone links nothing into a static program.
    std::hint::black_box(nix::libc::posix_spawn_file_actions_addchdir_np as *const ());
    found.flatten().unwrap_or_else(|| program.into())
}

/// Variables that are meant for the launcher and not for the command.
const LAUNCHER_PREFIX: &str = "FERROFLOW_";

/// The command's environment; of variables with one name the last one counts.
fn environment(spec: &AttemptSpec, mode: LaunchMode) -> Vec<(OsString, OsString)> {
    let declared = |(name, value): &(String, String)| (name.into(), value.into());
    let container = || {
        std::env::vars_os().filter(|(name, _)| {
            !name
                .as_encoded_bytes()
                .starts_with(LAUNCHER_PREFIX.as_bytes())
        })
    };
    let all: Vec<(OsString, OsString)> = match mode {
        LaunchMode::Machine => {
            let inherited = spec.inherited.iter();
            let inherited =
                inherited.filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
            // What a killed launcher leaves is found by this. In a container everything ends with
            // the launcher, which is the first process there.
            let mark = (ATTEMPT_VARIABLE.into(), spec.key.to_string().into());
            let declared = spec.env.iter().map(declared);
            inherited.chain(declared).chain([mark]).collect()
        }
        LaunchMode::Container => container().chain(spec.large_env().map(declared)).collect(),
        LaunchMode::WarmContainer => container().chain(spec.env.iter().map(declared)).collect(),
    };
    let unique: BTreeMap<OsString, OsString> = all.into_iter().collect();
    unique.into_iter().collect()
}

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
fn set_limits(limits: &Limits) -> io::Result<()> {
    if let Some(millis) = limits.cpu_millis {
        set_cpu_affinity(millis)?;
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
fn set_cpu_affinity(millis: u64) -> io::Result<()> {
    let wanted = usize::try_from(millis.div_ceil(1000))
        .unwrap_or(usize::MAX)
        .max(1);
    // The launcher itself may be kept to some of the machine's cores.
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

fn command_result(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    status: ExitStatus,
    termination: Option<TerminationCause>,
    eviction_message: &str,
) -> Result<(), Failure> {
    let (reason, message) = match (termination, status.code(), status.signal()) {
        // A command that ends well before its place goes away has done what it should.
        (None | Some(TerminationCause::Evicted), Some(0), _) => return Ok(()),
        (Some(TerminationCause::Evicted), ..) => {
            (FailureReason::Evicted, eviction_message.to_owned())
        }
        (Some(TerminationCause::TimedOut), ..) => {
            let limit = spec.limits.timeout_ms.unwrap_or(0);
            let seconds = Duration::from_millis(limit).as_secs_f64();
            (
                FailureReason::Timeout,
                format!("it took longer than its limit of {seconds} s"),
            )
        }
        (Some(TerminationCause::Canceled), ..) => {
            (FailureReason::Canceled, "it was stopped".to_owned())
        }
        (None, Some(code), _) => {
            let log = files.log_end(cause::SEARCHED_BYTES);
            (FailureReason::ExitCode, cause::from_log(code, &log))
        }
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

fn start_failed(spec: &AttemptSpec, mode: LaunchMode, error: &io::Error) -> Failure {
    let program = spec.argv.first().map_or("", String::as_str);
    let image = &spec.image;
    if error.kind() == io::ErrorKind::NotFound && mode.has_image() {
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
    Failure::of_io(&format!("cannot start {program:?}"), error)
}
