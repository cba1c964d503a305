//! Attempts as pods: one for each, no other pods, and nothing that Kubernetes must keep for us.
//!
//! ```text
//! ensure   spec.json ──► store;  pod ──► API server       (server-side apply, named by the attempt)
//! observe  one watch of the namespace ──► the pod has ended ──► outcome.json from the store
//! ```
//!
//! The store decides: an attempt with a report is done, whatever became of its pod, its node or of
//! us; one without is judged by its pod's status, and that becomes its report. `started` in the
//! store keeps a command from running twice under one attempt.

mod affinity;
mod claims;
mod index;
mod logs;
mod objects;
mod platform;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ferroflow_artifacts::stores::Stores;
use ferroflow_launcher::remote::{self, RemoteError, RemoteFiles};
use ferroflow_launcher::{AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome};
use ferroflow_types::RunId;
use ferroflow_types::time::{Clock as _, SystemClock};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{Layout, LogRequest, LogStream, Runtime, RuntimeError};
use index::{PodIndex, Seen};
use verdict::{Verdict, judge};

/// Settings of [`KubernetesRuntime`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Where pods are made.
    pub namespace: String,
    /// The image that holds `ferroflow-launcher`.
    pub launcher_image: String,
    /// The service account of tasks; empty for none, and then a task cannot talk to the API.
    pub service_account: String,
    /// The secret with `access-key-id` and `secret-access-key` for the object store; empty where
    /// pods have an identity of their own.
    pub store_secret: String,
    /// When images are pulled: Always, IfNotPresent or Never; empty for Kubernetes' own rule.
    pub image_pull_policy: String,
    /// Images that stand for others, for clusters without a way to the registries of pipelines; the
    /// one for `*` stands for all that are not named.
    pub images: BTreeMap<String, String>,
    /// Seconds that a pod may wait for its image before its attempt fails.
    pub image_patience_s: u64,
    /// Seconds that a pod may wait for a node before its attempt fails; 0 for ever.
    pub schedule_patience_s: u64,
    /// Where the files of attempts are: set from the artifacts' settings.
    #[serde(skip)]
    pub root: String,
    /// The store's endpoint as pods reach it: set from the artifacts' settings.
    #[serde(skip)]
    pub endpoint: String,
    /// The store's region: set from the artifacts' settings.
    #[serde(skip)]
    pub region: String,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            namespace: "ferroflow".to_owned(),
            launcher_image: String::new(),
            service_account: String::new(),
            store_secret: String::new(),
            image_pull_policy: String::new(),
            images: BTreeMap::new(),
            image_patience_s: 120,
            schedule_patience_s: 0,
            root: String::new(),
            endpoint: String::new(),
            region: String::new(),
        }
    }
}

impl KubernetesConfig {
    /// The image that runs where `image` was asked for.
    fn image(&self, image: &str) -> String {
        self.images
            .get(image)
            .or_else(|| self.images.get("*"))
            .map_or(image, String::as_str)
            .to_owned()
    }
}

/// The waits between tries of the API server, the last one repeated.
const RETRY_WAITS: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Attempts as pods.
pub struct KubernetesRuntime {
    config: KubernetesConfig,
    stores: Stores,
    pods: Api<Pod>,
    claims: Api<PersistentVolumeClaim>,
    index: PodIndex,
}

/// What came of asking the API server.
enum Asked {
    Done,
    /// It will never be taken.
    Refused(String),
}

impl KubernetesRuntime {
    /// A runtime over a cluster; watches its pods from now on.
    pub fn new(client: Client, config: KubernetesConfig, stores: Stores) -> Self {
        let pods = Api::<Pod>::namespaced(client.clone(), &config.namespace);
        Self {
            index: PodIndex::start(pods.clone()),
            claims: Api::namespaced(client, &config.namespace),
            config,
            stores,
            pods,
        }
    }

    /// A runtime over the cluster that the environment names: a pod's own, or a kubeconfig's.
    pub async fn connect(config: KubernetesConfig, stores: Stores) -> Result<Self, kube::Error> {
        Ok(Self::new(Client::try_default().await?, config, stores))
    }

    fn remote(&self, key: &AttemptKey) -> Result<RemoteFiles, RuntimeError> {
        RemoteFiles::new(&self.stores, &self.config.root, key).map_err(of_remote(key))
    }

    /// Asks until there is an answer that lasts; what is in the way now may not be later.
    async fn persist<F, T>(&self, key: &AttemptKey, ask: impl Fn() -> F + Send) -> Asked
    where
        F: Future<Output = Result<T, kube::Error>> + Send,
    {
        let mut waits = RETRY_WAITS.into_iter();
        let mut wait = RETRY_WAITS[0];
        loop {
            let error = match ask().await {
                Ok(_) => return Asked::Done,
                Err(kube::Error::Api(status)) if is_final(&status) => {
                    return Asked::Refused(status.message.clone());
                }
                Err(error) => error,
            };
            wait = waits.next().unwrap_or(wait);
            tracing::warn!(%key, %error, wait_s = wait.as_secs_f64(), "the cluster does not take it now, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn start_pod(
        &self,
        spec: &AttemptSpec,
        remote: &RemoteFiles,
    ) -> Result<(), RuntimeError> {
        let key = spec.key;
        let pod = match objects::pod(spec, &self.config) {
            Ok(pod) => pod,
            Err(problem) => {
                let failure = Failure::new(FailureReason::StartFailed, problem);
                return fail(remote, &key, failure).await.map(drop);
            }
        };
        if objects::uses_workspace(spec)
            && let Err(problem) = self.ensure_workspace(spec).await
        {
            let failure = Failure::new(FailureReason::StartFailed, problem);
            return fail(remote, &key, failure).await.map(drop);
        }
        let name = objects::pod_name(&key);
        let parameters = PatchParams::apply(objects::MANAGER).force();
        let asked = self
            .persist(&key, || async {
                // Pods cannot be changed, and one that is there was made from other settings at
                // worst: an upgrade between two tries.
                match self.pods.get_opt(&name).await? {
                    Some(there) => Ok(there),
                    None => {
                        self.pods
                            .patch(&name, &parameters, &Patch::Apply(&pod))
                            .await
                    }
                }
            })
            .await;
        match asked {
            Asked::Done => Ok(()),
            Asked::Refused(said) => {
                let message = format!("the cluster refuses its pod: {said}");
                let failure = Failure::new(FailureReason::StartFailed, message);
                fail(remote, &key, failure).await.map(drop)
            }
        }
    }

    /// Waits until the pod has ended, cannot start, or is gone; why, should there be no report.
    async fn pod_ended(&self, key: &AttemptKey) -> Failure {
        let name = objects::pod_name(key);
        let mut seen = self.index.subscribe(&name);
        let begun = Instant::now();
        loop {
            let now = seen.borrow_and_update().clone();
            let patience = match now {
                Seen::There(pod) => match judge(&pod) {
                    Verdict::Ended(failure) => return failure,
                    Verdict::Stuck(failure) => {
                        let patience = self.patience(&failure);
                        if patience.is_some_and(|patience| begun.elapsed() >= patience) {
                            return failure;
                        }
                        patience.map(|patience| begun + patience)
                    }
                    Verdict::AtWork => None,
                },
                Seen::Gone => {
                    return Failure::new(FailureReason::Lost, "its pod was deleted");
                }
                Seen::Unknown => {
                    self.look(&name).await;
                    // What the API said is there at once; what it could not say comes by the watch.
                    Some(Instant::now() + Duration::from_secs(5))
                }
            };
            tokio::select! {
                _ = seen.changed() => {}
                () = until(patience) => {}
            }
        }
    }

    /// Asks the API for a pod that the watch has not spoken of.
    async fn look(&self, name: &str) {
        match self.pods.get_opt(name).await {
            Ok(Some(pod)) => self.index.note(name, Seen::There(Arc::new(pod))),
            Ok(None) => self.index.note(name, Seen::Gone),
            Err(error) => tracing::warn!(name, %error, "a pod cannot be looked at"),
        }
    }

    /// How long an attempt may be stuck for this reason.
    fn patience(&self, failure: &Failure) -> Option<Duration> {
        match failure.reason {
            FailureReason::Unschedulable if self.config.schedule_patience_s == 0 => None,
            FailureReason::Unschedulable => {
                Some(Duration::from_secs(self.config.schedule_patience_s))
            }
            _ => Some(Duration::from_secs(self.config.image_patience_s)),
        }
    }

    /// The report of an attempt whose launcher gave none, with what its container printed.
    async fn report_for(
        &self,
        key: &AttemptKey,
        remote: &RemoteFiles,
        mut failure: Failure,
    ) -> Result<Outcome, RuntimeError> {
        if let Some(log) = self.pod_log(key).await {
            failure.log_tail = logs::tail(&log);
            remote.write_log(log.into()).await.map_err(of_remote(key))?;
        }
        if remote.stop_asked().await.map_err(of_remote(key))? {
            failure.reason = FailureReason::Canceled;
            "it was stopped".clone_into(&mut failure.message);
        }
        fail(remote, key, failure).await
    }

    /// Deletes the pod of an attempt whose report is kept.
    async fn collect_garbage(&self, key: &AttemptKey) {
        let name = objects::pod_name(key);
        let parameters = DeleteParams::background();
        match self.pods.delete(&name, &parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(%key, %error, "a pod is left behind"),
            Ok(_) => {}
        }
    }
}

/// Whether the API server would say the same for ever. A quota is not: others may make room.
fn is_final(status: &kube::core::Status) -> bool {
    let quota = status.message.contains("exceeded quota");
    matches!(status.code, 400 | 403 | 404 | 405 | 409 | 413 | 422) && !quota
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn of_remote(key: &AttemptKey) -> impl FnOnce(RemoteError) -> RuntimeError {
    let key = *key;
    move |source| RuntimeError::Io {
        key,
        what: "reach its files in the store",
        source: io::Error::other(source),
    }
}

/// Writes the report of an attempt that has none of its launcher; the one that counts.
async fn fail(
    remote: &RemoteFiles,
    key: &AttemptKey,
    failure: Failure,
) -> Result<Outcome, RuntimeError> {
    let now = SystemClock.now();
    let outcome = Outcome {
        started_at: now,
        finished_at: now,
        result: AttemptResult::Failed(failure),
    };
    remote.write_outcome(outcome).await.map_err(of_remote(key))
}

#[async_trait]
impl Runtime for KubernetesRuntime {
    fn layout(&self, _key: &AttemptKey) -> Layout {
        let dir = PathBuf::from(objects::ATTEMPT_DIR);
        let outputs_dir = dir.join("outputs");
        Layout {
            metadata_file: outputs_dir.join("output_metadata.json"),
            outputs_dir,
            working_dir: dir,
        }
    }

    fn workspace(&self, _run: RunId) -> PathBuf {
        PathBuf::from(objects::WORKSPACE)
    }

    async fn ensure(&self, spec: AttemptSpec) -> Result<(), RuntimeError> {
        let key = spec.key;
        let remote = self.remote(&key)?;
        let done = remote.read_outcome().await.map_err(of_remote(&key))?;
        if done.is_some() {
            return Ok(());
        }
        let spec = remote.write_spec(spec).await.map_err(of_remote(&key))?;
        if let Some(operation) = claims::operation(&spec) {
            return self.operate(&spec, operation, &remote).await;
        }
        self.start_pod(&spec, &remote).await
    }

    async fn observe(&self, key: &AttemptKey) -> Result<Outcome, RuntimeError> {
        let remote = self.remote(key)?;
        if let Some(outcome) = remote.read_outcome().await.map_err(of_remote(key))? {
            self.collect_garbage(key).await;
            return Ok(outcome);
        }
        if !remote.is_known().await.map_err(of_remote(key))? {
            return Err(RuntimeError::Unknown(*key));
        }
        let failure = self.pod_ended(key).await;
        let outcome = match remote.read_outcome().await.map_err(of_remote(key))? {
            Some(outcome) => outcome,
            None => self.report_for(key, &remote, failure).await?,
        };
        self.collect_garbage(key).await;
        Ok(outcome)
    }

    async fn logs(&self, key: &AttemptKey, request: LogRequest) -> Result<LogStream, RuntimeError> {
        let remote = self.remote(key)?;
        let done = remote.read_outcome().await.map_err(of_remote(key))?;
        let log = match done {
            Some(_) => self.kept(&remote, request.offset).await,
            None => self.live(key, request).await,
        };
        log.map_err(|source| RuntimeError::Io {
            key: *key,
            what: "read its log",
            source,
        })
    }

    async fn stop(&self, key: &AttemptKey) -> Result<(), RuntimeError> {
        let remote = self.remote(key)?;
        remote.ask_stop().await.map_err(of_remote(key))?;
        let name = objects::pod_name(key);
        let asked = self
            .persist(key, || async {
                let parameters = DeleteParams::default();
                match self.pods.delete(&name, &parameters).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    Err(error) => Err(error),
                    Ok(_) => Ok(()),
                }
            })
            .await;
        if let Asked::Refused(said) = asked {
            return Err(RuntimeError::Io {
                key: *key,
                what: "delete its pod",
                source: io::Error::other(said),
            });
        }
        Ok(())
    }

    async fn delete(&self, run: RunId) -> Result<(), RuntimeError> {
        let key = AttemptKey::of_run(run);
        let of_api = |error: kube::Error| RuntimeError::Io {
            key,
            what: "delete the run's pods",
            source: io::Error::other(error),
        };
        let selected = ListParams::default().labels(&format!("{}={run}", objects::RUN));
        let parameters = DeleteParams::background();
        self.pods
            .delete_collection(&parameters, &selected)
            .await
            .map_err(of_api)?;
        self.claims
            .delete_collection(&parameters, &selected)
            .await
            .map_err(of_api)?;
        remote::delete_run(&self.stores, &self.config.root, run)
            .await
            .map_err(of_remote(&key))
    }
}
