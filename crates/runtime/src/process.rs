//! Attempts as local processes, each under a launcher that outlives this one.

mod environments;
mod inputs;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ferroflow_artifacts::contents::Contents;
use ferroflow_artifacts::stores::Stores;
use ferroflow_launcher::{
    AttemptFiles, AttemptKey, AttemptSpec, Failure, FailureReason, Outcome, OwnerKey,
};
use ferroflow_python_env::PythonEnvs;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::sync::watch;

use crate::checks::check_inputs;
use crate::fetch::{self, LinkHandling};
use crate::folders::{
    self, Folders, POLL_INTERVAL, failed_outcome, of_io, read_outcome, unless_stopped,
    write_failure,
};
use crate::preparations::Preparations;
use crate::{
    Capabilities, Destinations, EntryPoints, Layout, LogRequest, LogStream, Notes, Runtime,
    RuntimeError, SharedFolder, Site, Slots, environment, remarks,
};
pub use inputs::InputAccess;

/// How long a group may take to end after it was asked to.
const TERMINATION_GRACE: Duration = Duration::from_secs(5);

/// The folder of copies of inputs, in that of their attempt.
const COPIES: &str = "inputs";

/// Settings of [`ProcessRuntime`].
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Attempts and workspaces live here.
    pub data_dir: PathBuf,
    /// The launcher's program and first arguments; the attempt's folder is added.
    pub launcher: Vec<OsString>,
    /// Where commands look for programs.
    pub path: String,
    /// How commands reach their inputs.
    pub inputs: InputAccess,
    /// The folder that artifacts of all tasks are kept in, if they are kept on this machine.
    pub artifacts: Option<PathBuf>,
}

/// Attempts as local processes.
pub struct ProcessRuntime {
    processes: Arc<Processes>,
    preparations: Preparations,
}

/// What preparations work with as well.
struct Processes {
    config: ProcessConfig,
    folders: Folders,
    python: PythonEnvs,
    stores: Stores,
    contents: Contents,
    notes: Notes,
    slots: Slots,
    /// Launchers that are our own children; each says when it has ended.
    children: Arc<Mutex<HashMap<AttemptKey, watch::Receiver<bool>>>>,
}

impl ProcessRuntime {
    /// A runtime over a data folder.
    pub fn new(config: ProcessConfig, python: PythonEnvs, stores: Stores) -> Self {
        let processes = Processes {
            folders: Folders::new(config.data_dir.clone()),
            config,
            python,
            contents: Contents::new(stores.clone()),
            stores,
            notes: Notes::default(),
            slots: Slots::default(),
            children: Arc::default(),
        };
        Self {
            processes: Arc::new(processes),
            preparations: Preparations::default(),
        }
    }
}

impl Processes {
    /// Makes the attempt's folders, its environment and its spec.
    async fn prepare(&self, mut spec: AttemptSpec, files: &AttemptFiles) -> io::Result<()> {
        let dir = files.dir();
        let (home, temp) = (dir.join("home"), dir.join("tmp"));
        let workspace = self.folders.workspace(&spec.key.owner);
        let shared = spec.workspace.is_some().then_some(&workspace);
        for folder in [&home, &temp, &spec.working_dir].into_iter().chain(shared) {
            std::fs::create_dir_all(folder)?;
        }
        // A failure becomes the attempt's outcome, and no error: `begin` finds it and starts no
        // launcher.
        let ready = unless_stopped(files, self.inputs_for(&spec)).await;
        if let Err(failure) = ready.flatten() {
            return write_failure(files, failure);
        }
        let python = match self.python_for(&spec, files).await {
            Ok(python) => python,
            Err(failure) => return write_failure(files, failure),
        };
        if self.config.inputs == InputAccess::Mounted {
            // What is not there cannot be mounted, and the command could make it.
            if let Some(kept) = &self.config.artifacts {
                std::fs::create_dir_all(kept)?;
            }
            let own = [dir, &workspace];
            spec.read_only = inputs::read_only(&spec, self.config.artifacts.as_deref(), &own);
        }
        let mut path = self.config.path.clone();
        let mut base = Vec::new();
        if let Some(python) = python {
            path = format!("{}:{path}", python.env.bin.display());
            let venv = python.env.dir.display().to_string();
            base.push(("VIRTUAL_ENV".to_owned(), venv));
            base.extend(python.variables);
            spec.inherited = python.inherited;
            spec.argv.drain(..python.start);
        }
        let item = spec.key.item.to_string();
        base.extend([
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), home.display().to_string()),
            ("TMPDIR".to_owned(), temp.display().to_string()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        base.extend(spec.kfp_variables(&item, &item));
        if let Some(traceparent) = &spec.traceparent {
            base.push(("TRACEPARENT".to_owned(), traceparent.clone()));
        }
        spec.env = environment::assemble(base, &spec.env);
        // Last: a spec that is there means that all of this is done.
        files.write_spec(&spec)
    }

    /// Prepares the attempt and starts its launcher, as far as that is not done.
    async fn begin(&self, spec: AttemptSpec) -> Result<(), RuntimeError> {
        let key = spec.key.clone();
        let files = self.folders.files(&key);
        if read_outcome(&key, &files)?.is_some() {
            return Ok(());
        }
        if spec.only_fetches() {
            return fetch::run(&self.stores, &spec, &files, LinkHandling::Followed).await;
        }
        if !files.dir().join("spec.json").exists() {
            if let Err(error) = self.prepare(spec, &files).await {
                // A full disk or a folder that cannot be written is the task's failure, with its
                // reason; if not even that can be written, it is the caller's to try again.
                let failure = Failure::of_io("cannot prepare the attempt", &error);
                return write_failure(&files, failure).map_err(of_io(&key, "write its report"));
            }
            if read_outcome(&key, &files)?.is_some() {
                return Ok(());
            }
        }
        if self.lock_children().contains_key(&key) {
            return Ok(());
        }
        // If a launcher is at work already, this one finds the lock taken and ends.
        self.spawn(key.clone(), &files)
            .map_err(of_io(&key, "start its launcher"))
    }

    async fn inputs_for(&self, spec: &AttemptSpec) -> Result<(), Failure> {
        check_inputs(&self.contents, spec).await?;
        inputs::copy(spec).await
    }

    /// Starts the launcher as a child that we wait for but that does not end with us.
    fn spawn(&self, key: AttemptKey, files: &AttemptFiles) -> io::Result<()> {
        let mut launcher = self.config.launcher.iter();
        let program = launcher
            .next()
            .ok_or_else(|| io::Error::other("no launcher is configured"))?;
        let mut child = Command::new(program)
            .args(launcher)
            .arg(files.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal reaches the server's group only, so steps go on.
            .process_group(0)
            .spawn()?;
        let (ended, ended_receiver) = watch::channel(false);
        self.lock_children().insert(key.clone(), ended_receiver);
        let children = Arc::clone(&self.children);
        // Only reaps: whoever observes the attempt is told through the channel.
        tokio::spawn(async move {
            if let Err(error) = child.wait().await {
                tracing::warn!(%key, %error, "cannot wait for a launcher");
            }
            ended.send_replace(true);
            children
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&key);
        });
        Ok(())
    }

    fn lock_children(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<AttemptKey, watch::Receiver<bool>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said of an attempt that left no outcome.
    fn lost_failure(files: &AttemptFiles) -> Failure {
        let (reason, message) = if files.stop_requested() {
            (FailureReason::Canceled, "it was stopped")
        } else {
            let vanished = "its launcher vanished without a report (a reboot, or out of memory)";
            (FailureReason::Lost, vanished)
        };
        let mut failure = Failure::new(reason, message);
        failure.log_tail = files.log_tail();
        failure
    }

    /// Ends what a launcher that was killed left; one that wrote its outcome left nothing.
    async fn end_leftovers(
        &self,
        key: &AttemptKey,
        files: &AttemptFiles,
    ) -> Result<(), RuntimeError> {
        if !files.started() || read_outcome(key, files)?.is_some() {
            return Ok(());
        }
        let (files, attempt) = (files.clone(), key.clone());
        tokio::task::spawn_blocking(move || ferroflow_launcher::end_leftovers(&files, &attempt))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(of_io(key, "end what its killed launcher left"))
    }

    /// Returns when no launcher works on the attempt.
    async fn launcher_ended(&self, key: &AttemptKey, files: &AttemptFiles) -> io::Result<()> {
        let child = self.lock_children().get(key).cloned();
        if let Some(mut child) = child {
            // An error means that the sender is gone, so the launcher has ended as well.
            let _ended = child.wait_for(|ended| *ended).await.is_err();
        }
        // A launcher that another server started is no child of this process: its lock tells.
        let files = files.clone();
        tokio::task::spawn_blocking(move || files.wait_unlocked())
            .await
            .map_err(io::Error::other)?
    }
}

/// Signals the command of a launcher of the release before, which cannot be told; whether there is one.
fn end_group(files: &AttemptFiles, signal: Signal) -> bool {
    let group = files.read_process_group().and_then(Pid::from_raw);
    group.is_some_and(|group| kill_process_group(group, signal).is_ok())
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn layout(&self, key: &AttemptKey) -> Layout {
        let copies = self.processes.folders.files(key).dir().join(COPIES);
        Layout {
            copies_dir: (self.processes.config.inputs == InputAccess::Copied).then_some(copies),
            ..self.processes.folders.layout(key)
        }
    }

    fn workspace(&self, owner: &OwnerKey) -> SharedFolder {
        let path = self.processes.folders.workspace(owner);
        SharedFolder { path, claim: None }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            site: Site::Machine,
            entry_points: EntryPoints::Unknown,
            outputs: Destinations::Files,
        }
    }

    fn slots(&self) -> &Slots {
        &self.processes.slots
    }

    fn notes(&self) -> &Notes {
        &self.processes.notes
    }

    async fn interpreter(&self, image: &str, argv: &[String]) -> Option<String> {
        let found = self.processes.interpreter_of(image, argv).await?;
        Some(found.identity)
    }

    async fn remarks(&self, spec: &AttemptSpec) -> Vec<String> {
        let python = self.processes.interpreter_of(&spec.image, &spec.argv).await;
        remarks::of_process(spec, python.as_ref())
    }

    async fn ensure(&self, spec: AttemptSpec) -> Result<(), RuntimeError> {
        let key = spec.key.clone();
        let files = self.processes.folders.files(&key);
        if read_outcome(&key, &files)?.is_some() {
            return Ok(());
        }
        // Its log and its end can be asked for from now on.
        std::fs::create_dir_all(files.dir()).map_err(of_io(&key, "make its folder"))?;
        let processes = Arc::clone(&self.processes);
        let begin = async move { processes.begin(spec).await };
        self.preparations.begin(&key, begin);
        Ok(())
    }

    async fn observe(&self, key: &AttemptKey) -> Result<Outcome, RuntimeError> {
        let files = self.processes.folders.existing(key)?;
        self.preparations.wait(key).await?;
        self.processes
            .launcher_ended(key, &files)
            .await
            .map_err(of_io(key, "wait for its launcher"))?;
        inputs::remove_copies(&files.dir().join(COPIES));
        if let Some(outcome) = read_outcome(key, &files)? {
            return Ok(outcome);
        }
        // Before the attempt counts as lost: the next one must not meet what its command started.
        self.processes.end_leftovers(key, &files).await?;
        Ok(failed_outcome(Processes::lost_failure(&files)))
    }

    async fn logs(&self, key: &AttemptKey, request: LogRequest) -> Result<LogStream, RuntimeError> {
        Ok(folders::log(self.processes.folders.existing(key)?, request))
    }

    async fn stop(&self, key: &AttemptKey) -> Result<(), RuntimeError> {
        let files = self.processes.folders.files(key);
        if !files.dir().exists() {
            return Ok(());
        }
        files.request_stop().map_err(of_io(key, "ask it to stop"))?;
        let requested_at = Instant::now();
        let (mut signaled, mut group_signaled) = (false, false);
        // The launcher may be a child of another server: its lock tells when it has ended.
        while files
            .try_lock()
            .map_err(of_io(key, "look at its lock"))?
            .is_none()
        {
            if !signaled {
                // `false` while a launcher has not noted itself yet, and always of one up to 0.1.0.
                signaled = files
                    .terminate_launcher()
                    .map_err(of_io(key, "tell its launcher"))?;
            }
            // A launcher that was told ends its command itself, and kills what does not end.
            if !signaled && requested_at.elapsed() > TERMINATION_GRACE {
                end_group(&files, Signal::KILL);
            } else if !signaled && !group_signaled {
                group_signaled = end_group(&files, Signal::TERM);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        self.processes.end_leftovers(key, &files).await
    }

    async fn delete(&self, owner: &OwnerKey) -> Result<(), RuntimeError> {
        // Before the folders go: a preparation would make them again.
        self.preparations.forget(owner).await;
        self.processes.folders.delete(owner).await
    }
}
