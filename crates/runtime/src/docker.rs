//! Attempts as containers of this machine, for laptops with images.
//!
//! ```text
//! ensure   image ──► folder, spec.json ──► container   (named by the attempt, made and started once)
//! observe  the engine says that it has ended ──► outcome.json from the folder
//! ```
//!
//! The attempt's folder is the one of a local process, mounted at the path that it has outside, and
//! it decides: an attempt with an outcome is done, whatever became of its container, the engine or us;
//! one without is judged by what the engine says, and that becomes its outcome. `started` in the
//! folder keeps a command from running twice under one attempt. Containers are removed once their
//! outcome is read; those of a server that died, when the next one starts.

mod config;
mod engine;
mod images;
mod inputs;
mod launcher;
mod models;
mod objects;
mod platform;
mod prepare;
#[cfg(test)]
mod tests;
mod transfers;
mod user;
mod verdict;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::ContainerState;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use ferroflow_artifacts::contents::Contents;
use ferroflow_artifacts::stores::Stores;
use ferroflow_launcher::{
    AttemptFiles, AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome, OwnerKey,
};
use futures::StreamExt as _;

use crate::fetch::{self, LinkHandling};
use crate::folders::{self, Folders, POLL_INTERVAL};
use crate::folders::{failed_outcome, of_io, read_outcome, unless_stopped};
use crate::preparations::Preparations;
use crate::{
    Capabilities, Destinations, EntryPoints, Layout, LogRequest, LogStream, Notes, Runtime,
    RuntimeError, SharedFolder, Site, Slots, remarks,
};
pub use config::DockerConfig;
pub use engine::DockerError;
use engine::{Engine, EngineRefusal, with_retries};
use images::PullPolicy;
pub use launcher::LauncherError;
use user::User;
use verdict::{Verdict, judge};

/// How long a container that was made may stay unstarted before it is looked at again.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Attempts as containers.
pub struct DockerRuntime {
    containers: Arc<Containers>,
    preparations: Preparations,
}

/// What preparations work with as well.
struct Containers {
    docker: Docker,
    engine: Engine,
    config: DockerConfig,
    launcher: PathBuf,
    pull_policy: PullPolicy,
    user: Option<User>,
    folders: Folders,
    stores: Stores,
    contents: Contents,
    notes: Notes,
    slots: Slots,
    /// Held while an outcome is decided about.
    outcome_locks: Mutex<HashMap<AttemptKey, Weak<tokio::sync::Mutex<()>>>>,
}

impl DockerRuntime {
    /// A runtime over the engine that the settings name; what a server that died left is swept away.
    ///
    /// # Errors
    /// When there is no engine, no launcher, or a setting cannot be understood.
    pub async fn connect(config: DockerConfig, stores: Stores) -> Result<Self, DockerError> {
        let launcher = launcher::find(config.launcher.as_deref())?;
        let setting = |problem| DockerError::Setting(format!("docker.pull_policy: {problem}"));
        let pull_policy = config.pull_policy.as_deref();
        let pull_policy = pull_policy.map_or(Ok(PullPolicy::IfNotPresent), PullPolicy::parse);
        let pull_policy = pull_policy.map_err(setting)?;
        let user = config.user.as_deref().map(User::parse).transpose();
        let user = user.map_err(DockerError::Setting)?;
        // Every container mounts it, and the engine refuses a mount whose source is not there.
        if let Some(root) = &config.artifacts {
            std::fs::create_dir_all(root).map_err(|error| {
                DockerError::Setting(format!("cannot make {}: {error}", root.display()))
            })?;
        }
        let (docker, engine) = engine::connect(config.host.as_deref()).await?;
        let containers = Containers {
            docker,
            engine,
            launcher,
            pull_policy,
            user,
            folders: Folders::new(config.data_dir.clone()),
            config,
            contents: Contents::new(stores.clone()),
            stores,
            notes: Notes::default(),
            slots: Slots::default(),
            outcome_locks: Mutex::default(),
        };
        containers.sweep().await;
        Ok(Self {
            containers: Arc::new(containers),
            preparations: Preparations::default(),
        })
    }
}

impl Containers {
    /// Removes containers whose attempts are done or forgotten.
    async fn sweep(&self) {
        let label = format!("{}={}", objects::DATA_LABEL, self.config.data_dir.display());
        // An engine that cannot list does not stop the start: what is left is swept at the next
        // one.
        for (name, key) in self.list(vec![label]).await.unwrap_or_default() {
            // A container without the labels of an attempt held an image for a copy
            // (`models::TemporaryContainer`), which ended with its server.
            let files = key.map(|key| self.folders.files(&key));
            let needed = files.is_some_and(|files| {
                files.dir().exists() && !files.read_outcome().is_ok_and(|outcome| outcome.is_some())
            });
            if !needed {
                remove(self.docker.clone(), name).await;
            }
        }
    }

    /// Containers with all of the labels, and the attempts that they belong to.
    async fn list(
        &self,
        labels: Vec<String>,
    ) -> Result<Vec<(String, Option<AttemptKey>)>, bollard::errors::Error> {
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let listed = self.docker.list_containers(Some(options)).await?;
        let named = listed.into_iter().filter_map(|container| {
            let labels = container.labels.unwrap_or_default();
            let key = objects::LABELS.attempt(|name| labels.get(name));
            Some((container.id?, key))
        });
        Ok(named.collect())
    }

    /// How the container stands; nothing when there is none.
    async fn state(&self, key: &AttemptKey) -> Result<Option<ContainerState>, RuntimeError> {
        let name = objects::container_name(key);
        match with_retries(key, || self.docker.inspect_container(&name, None)).await {
            Ok(found) => Ok(Some(found.state.unwrap_or_default())),
            Err(refused) if refused.is_missing() => Ok(None),
            Err(refused) => Err(of_engine(key, "look at its container")(refused)),
        }
    }

    /// Starts a container that was made. One that ran is not started again.
    async fn start(&self, key: &AttemptKey, files: &AttemptFiles) -> Result<(), RuntimeError> {
        let name = objects::container_name(key);
        match with_retries(key, || self.docker.start_container(&name, None)).await {
            // 404, 409: it was stopped and removed meanwhile; there is an outcome, or soon will be.
            Ok(())
            | Err(EngineRefusal {
                status: 404 | 409, ..
            }) => Ok(()),
            Err(refused) => {
                let message = format!("its container cannot be started: {}", refused.message);
                let failure = Failure::new(FailureReason::StartFailed, message);
                self.conclude(key, files, || failure).await.map(drop)
            }
        }
    }

    /// Waits until the container has ended or is gone; why, should there be no outcome.
    async fn wait_for_end(
        &self,
        key: &AttemptKey,
        files: &AttemptFiles,
    ) -> Result<Failure, RuntimeError> {
        let name = objects::container_name(key);
        let mut waited = false;
        loop {
            let Some(state) = self.state(key).await? else {
                let message = "its container was removed";
                return Ok(Failure::new(FailureReason::Lost, message));
            };
            let spec = files.read_spec().map_err(of_io(key, "read its spec"))?;
            let (condition, timeout) = match judge(&state, spec.as_ref(), files.started()) {
                Verdict::Ended(failure) => return Ok(failure),
                Verdict::Created if files.stop_requested() => {
                    let message = "it was stopped before it began";
                    return Ok(Failure::new(FailureReason::Canceled, message));
                }
                // The engine counts a container that never started as not running, so its next exit
                // is waited for. That one may be over already, or never come: hence the timeout.
                Verdict::Created => ("next-exit", START_TIMEOUT),
                Verdict::Running => ("not-running", Duration::MAX),
            };
            let options = WaitContainerOptionsBuilder::new()
                .condition(condition)
                .build();
            let mut answers = self.docker.wait_container(&name, Some(options));
            // The answer does not matter, nor whether the engine goes away: the container is looked
            // at again.
            let _answered = tokio::time::timeout(timeout, answers.next()).await.is_ok();
            if waited {
                // The engine answered before, and the container has not ended: it is not asked in a
                // tight loop.
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            waited = true;
        }
    }

    /// The outcome that counts: the launcher's, or the one that follows from what was seen.
    async fn conclude(
        &self,
        key: &AttemptKey,
        files: &AttemptFiles,
        why: impl FnOnce() -> Failure,
    ) -> Result<Outcome, RuntimeError> {
        // `begin`, a stop and several observers may conclude at once: the first outcome counts, and
        // outputs are uploaded once.
        let lock = self.outcome_lock(key);
        let _held = lock.lock().await;
        let outcome = if let Some(outcome) = read_outcome(key, files)? {
            outcome
        } else {
            let outcome = failed_outcome(final_failure(files, why()));
            files
                .write_outcome(&outcome)
                .map_err(of_io(key, "write its report"))?;
            outcome
        };
        tokio::spawn(remove(self.docker.clone(), objects::container_name(key)));
        self.upload_outputs(key, files, outcome).await
    }

    /// Uploads outputs to other stores, once.
    async fn upload_outputs(
        &self,
        key: &AttemptKey,
        files: &AttemptFiles,
        outcome: Outcome,
    ) -> Result<Outcome, RuntimeError> {
        let Some(spec) = files.read_spec().map_err(of_io(key, "read its spec"))? else {
            return Ok(outcome);
        };
        let uploaded_mark = files.dir().join("given");
        if uploaded_mark.exists() {
            return Ok(outcome);
        }
        let mut outcome = outcome;
        if let AttemptResult::Succeeded(outputs) = &mut outcome.result
            && transfers::has_remote_outputs(&spec)
        {
            let result = transfers::upload_outputs(&self.stores, &spec, files.dir(), outputs).await;
            if let Err(failure) = result {
                if failure.reason == FailureReason::StoreAway && !files.stop_requested() {
                    // The outputs are here and stay here until they can be uploaded.
                    return Err(fetch::store_unavailable(key, "keep its outputs", failure));
                }
                outcome.result = AttemptResult::Failed(final_failure(files, failure));
            }
            files
                .write_outcome(&outcome)
                .map_err(of_io(key, "write its report"))?;
        }
        // Last: a crash before this repeats the transfer, which writes the same objects again.
        std::fs::write(&uploaded_mark, []).map_err(of_io(key, "note that its outputs are kept"))?;
        transfers::remove_copies(files.dir());
        Ok(outcome)
    }

    /// Prepares the attempt and starts its container, as far as that is not done.
    async fn begin(&self, spec: AttemptSpec) -> Result<(), RuntimeError> {
        let key = spec.key.clone();
        let files = self.folders.files(&key);
        if read_outcome(&key, &files)?.is_some() || files.started() {
            return Ok(());
        }
        if let Some(state) = self.state(&key).await? {
            // Only `Created` matters here, for which neither the spec nor the start mark counts.
            return match judge(&state, None, false) {
                Verdict::Created => self.start(&key, &files).await,
                // It runs, or it has ended, which `observe` judges.
                _ => Ok(()),
            };
        }
        if spec.only_fetches() {
            return match self.checked_fetch(spec) {
                Ok(spec) => fetch::run(&self.stores, &spec, &files, LinkHandling::Kept).await,
                Err(failure) => self.conclude(&key, &files, || failure).await.map(drop),
            };
        }
        let prepared = unless_stopped(&files, Box::pin(self.prepare(spec, &files))).await;
        match prepared.and_then(|prepared| prepared) {
            Ok(()) => self.start(&key, &files).await,
            Err(failure) => {
                transfers::remove_copies(files.dir());
                self.conclude(&key, &files, || failure).await.map(drop)
            }
        }
    }

    /// How long a registry that does not answer is tried.
    fn image_pull_timeout(&self) -> Duration {
        Duration::from_secs(self.config.image_patience_s)
    }

    /// The lock under which the outcome of an attempt is decided about.
    fn outcome_lock(&self, key: &AttemptKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self
            .outcome_locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        locks.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }
}

/// What is said of an attempt without an outcome.
fn final_failure(files: &AttemptFiles, mut failure: Failure) -> Failure {
    if files.stop_requested() && failure.reason != FailureReason::Canceled {
        failure.reason = FailureReason::Canceled;
        "it was stopped".clone_into(&mut failure.message);
    }
    failure.log_tail = files.log_tail();
    failure
}

/// Removes a container with everything in it; one that is gone is what is wanted.
async fn remove(docker: Docker, name: String) {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    let Err(error) = docker.remove_container(&name, Some(options)).await else {
        return;
    };
    // 409: another removal is under way.
    let gone = engine::refusal(&error).is_some_and(|refused| matches!(refused.status, 404 | 409));
    if !gone {
        tracing::warn!(name, %error, "a container is left until the next start");
    }
}

fn of_engine(key: &AttemptKey, what: &'static str) -> impl FnOnce(EngineRefusal) -> RuntimeError {
    let key = key.clone();
    move |refused| RuntimeError::Io {
        key,
        what,
        source: io::Error::other(refused.message),
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn layout(&self, key: &AttemptKey) -> Layout {
        self.containers.folders.layout(key)
    }

    fn workspace(&self, owner: &OwnerKey) -> SharedFolder {
        let path = self.containers.folders.workspace(owner);
        SharedFolder { path, claim: None }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            site: Site::Machine,
            entry_points: EntryPoints::OfImages,
            outputs: Destinations::FilesAndStores,
        }
    }

    fn slots(&self) -> &Slots {
        &self.containers.slots
    }

    fn notes(&self) -> &Notes {
        &self.containers.notes
    }

    async fn remarks(&self, spec: &AttemptSpec) -> Vec<String> {
        remarks::of_settings(spec, &platform::FOLLOWED)
            .into_iter()
            .collect()
    }

    async fn ensure(&self, spec: AttemptSpec) -> Result<(), RuntimeError> {
        let key = spec.key.clone();
        let files = self.containers.folders.files(&key);
        if read_outcome(&key, &files)?.is_some() || files.started() {
            return Ok(());
        }
        // Its log and its end can be asked for from now on.
        std::fs::create_dir_all(files.dir()).map_err(of_io(&key, "make its folder"))?;
        let containers = Arc::clone(&self.containers);
        let begin = async move { containers.begin(spec).await };
        self.preparations.begin(&key, begin);
        Ok(())
    }

    async fn observe(&self, key: &AttemptKey) -> Result<Outcome, RuntimeError> {
        let files = self.containers.folders.existing(key)?;
        self.preparations.wait(key).await?;
        let spec = files.read_spec().map_err(of_io(key, "read its spec"))?;
        let failure = match read_outcome(key, &files)? {
            // `conclude` reads the outcome again; this counts only if it is gone by then.
            Some(_) => Failure::new(FailureReason::Lost, "its report vanished"),
            None if spec.is_some_and(|spec| spec.only_fetches()) => {
                fetch::wait_until_unlocked(key, &files).await?;
                Failure::new(
                    FailureReason::Lost,
                    "the server ended while it brought content",
                )
            }
            None => self.containers.wait_for_end(key, &files).await?,
        };
        self.containers.conclude(key, &files, || failure).await
    }

    async fn logs(&self, key: &AttemptKey, request: LogRequest) -> Result<LogStream, RuntimeError> {
        let files = self.containers.folders.existing(key)?;
        Ok(folders::log(files, request))
    }

    async fn stop(&self, key: &AttemptKey) -> Result<(), RuntimeError> {
        let files = self.containers.folders.files(key);
        if !files.dir().exists() {
            return Ok(());
        }
        // Before the container is told: whoever concludes meanwhile must see a cancellation, not a
        // loss.
        files.request_stop().map_err(of_io(key, "ask it to stop"))?;
        let name = objects::container_name(key);
        let options = StopContainerOptionsBuilder::new()
            .t(objects::STOP_TIMEOUT_S)
            .build();
        match with_retries(key, || {
            self.containers
                .docker
                .stop_container(&name, Some(options.clone()))
        })
        .await
        {
            // 304: it has ended already. 404: it was never made, or is removed.
            Ok(())
            | Err(EngineRefusal {
                status: 304 | 404, ..
            }) => Ok(()),
            Err(refused) => Err(of_engine(key, "stop its container")(refused)),
        }
    }

    async fn delete(&self, owner: &OwnerKey) -> Result<(), RuntimeError> {
        // Before the folders go: a preparation would make them again.
        self.preparations.forget(owner).await;
        let listed = self.containers.list(objects::LABELS.selectors(owner)).await;
        let listed = listed.map_err(|error| RuntimeError::Io {
            key: AttemptKey::of_owner(owner),
            what: "find its owner's containers",
            source: io::Error::other(error),
        })?;
        for (name, _) in listed {
            remove(self.containers.docker.clone(), name).await;
        }
        self.containers.folders.delete(owner).await
    }
}
