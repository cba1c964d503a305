//! Attempts as pods: one for each, no other pods, and nothing that Kubernetes must keep for us.
//!
//! ```text
//! ensure   spec.json ──► store;  pod ──► API server       (server-side apply, named by the attempt)
//! observe  its launcher reports, or one watch of the namespace sees the pod's end
//!          ──► outcome.json from the store
//! ```
//!
//! The store decides: an attempt with an outcome is done, whatever became of its pod, its node or of
//! us; one without is judged by its pod's status, and that becomes its outcome. `started` in the
//! store keeps a command from running twice under one attempt.

mod affinity;
mod claims;
mod config;
mod ending;
mod index;
mod launchers;
mod logs;
mod objects;
mod platform;
mod reconciler;
#[cfg(test)]
mod tests;
mod verdict;
mod warm;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ferroflow_artifacts::stores::Stores;
use ferroflow_launcher::remote::{self, RemoteError, RemoteFiles};
use ferroflow_launcher::{
    AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, Outcome, OwnerKey,
};
use ferroflow_types::error::chain;
use ferroflow_types::time::{Clock as _, SystemClock};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};

use crate::{
    Capabilities, Destinations, EntryPoints, Layout, LogRequest, LogStream, Notes, Runtime,
    RuntimeError, SharedFolder, Site, Slots,
};
pub use config::{KubernetesConfig, WarmConfig};
use index::PodIndex;
use launchers::LauncherEndpoint;
use reconciler::PodReconciler;
use tokio_util::task::AbortOnDropHandle;
use warm::{PodClass, WarmPool};

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
    client: Client,
    index: Arc<PodIndex>,
    warm: Arc<WarmPool>,
    notes: Notes,
    slots: Slots,
    /// Where launchers call, if they can.
    endpoint: Option<LauncherEndpoint>,
    /// What works for the runtime; it ends with it.
    _background_tasks: Vec<AbortOnDropHandle<()>>,
}

/// Why there is no runtime over a cluster.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The cluster.
    #[error("cannot reach the cluster")]
    Cluster(#[from] kube::Error),
    /// The address for launchers.
    #[error("launchers cannot be listened to at {0:?} (kubernetes.report_listen)")]
    Listen(String, #[source] io::Error),
    /// Settings that do not go together.
    #[error(
        "kubernetes.warm.size is {0}, and warm pods ask for their steps: give kubernetes.report_listen"
    )]
    NoReportListener(usize),
}

/// How the API server decided about a request.
enum ApiResult {
    Accepted,
    /// It will never be taken: why.
    Rejected(String),
}

impl KubernetesRuntime {
    /// A runtime over a cluster; watches its pods from now on.
    ///
    /// # Errors
    /// When launchers cannot be listened to.
    pub fn open(
        client: Client,
        config: KubernetesConfig,
        stores: Stores,
    ) -> Result<Self, OpenError> {
        let pods = Api::<Pod>::namespaced(client.clone(), &config.namespace);
        let index = Arc::new(PodIndex::start(pods.clone()));
        let listen = config.report_listen.clone();
        let of_listen = |error| OpenError::Listen(listen.clone().unwrap_or_default(), error);
        let mut background_tasks = Vec::new();
        let warm = Arc::new(WarmPool::new(config.warm, pool_name().map_err(of_listen)?));
        let endpoint = if let Some(listen) = &listen {
            let (endpoint, listener) =
                LauncherEndpoint::open(listen, config.report_url.as_deref()).map_err(of_listen)?;
            let serving = launchers::serve(
                endpoint.clone(),
                listener,
                Arc::clone(&index),
                Arc::clone(&warm),
            );
            background_tasks.push(serving.map_err(of_listen)?);
            Some(endpoint)
        } else if warm.is_enabled() {
            return Err(OpenError::NoReportListener(config.warm.size));
        } else {
            None
        };
        let reconciler = PodReconciler {
            pool: Arc::clone(&warm),
            index: Arc::clone(&index),
            pods,
            config: config.clone(),
            stores: stores.clone(),
            endpoint: endpoint.clone(),
        };
        background_tasks.push(reconciler.start());
        Ok(Self {
            client,
            config,
            stores,
            index,
            warm,
            notes: Notes::default(),
            slots: Slots::default(),
            endpoint,
            _background_tasks: background_tasks,
        })
    }

    /// A runtime over the cluster that the environment names: a pod's own, or a kubeconfig's.
    pub async fn connect(config: KubernetesConfig, stores: Stores) -> Result<Self, OpenError> {
        Self::open(Client::try_default().await?, config, stores)
    }

    /// Where the pods of an owner's attempts are.
    fn pods(&self, owner: &OwnerKey) -> Api<Pod> {
        let namespace = self.config.namespace_of(&owner.namespace);
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Where its volume claims are.
    fn claims(&self, owner: &OwnerKey) -> Api<PersistentVolumeClaim> {
        let namespace = self.config.namespace_of(&owner.namespace);
        Api::namespaced(self.client.clone(), namespace)
    }

    fn remote(&self, key: &AttemptKey) -> Result<RemoteFiles, RuntimeError> {
        RemoteFiles::new(&self.stores, &self.config.root, key).map_err(of_remote(key))
    }

    /// Asks until there is an answer that lasts; what is in the way now may not be later.
    async fn with_retries<F, T>(&self, key: &AttemptKey, ask: impl Fn() -> F + Send) -> ApiResult
    where
        F: Future<Output = Result<T, kube::Error>> + Send,
    {
        let mut waits = RETRY_WAITS.into_iter();
        let mut wait = RETRY_WAITS[0];
        loop {
            let error = match ask().await {
                Ok(_) => {
                    self.notes.set(key, None);
                    return ApiResult::Accepted;
                }
                Err(kube::Error::Api(status)) if is_final(&status) => {
                    return ApiResult::Rejected(status.message.clone());
                }
                Err(error) => error,
            };
            self.notes.set(key, Some(&retry_note(&error)));
            wait = waits.next().unwrap_or(wait);
            tracing::warn!(%key, %error, wait_s = wait.as_secs_f64(), "the cluster does not take it now, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Gives the attempt to a pod that waits; whether there was one, now or before a crash.
    async fn assign_warm_pod(
        &self,
        spec: &AttemptSpec,
        is_new: bool,
        remote: &RemoteFiles,
    ) -> Result<bool, RuntimeError> {
        let key = spec.key.clone();
        if !is_new {
            // It may have a pod of its own already. If it was given to a warm one, that decides.
            let assigned = remote.assigned_pod().await.map_err(of_remote(&key))?;
            return Ok(assigned.is_some());
        }
        let Some(class) = PodClass::of(spec).filter(|_| self.warm.is_enabled()) else {
            return Ok(false);
        };
        let assigned = self.warm.assign(&class, key.clone(), remote).await;
        let Some(name) = assigned.map_err(of_remote(&key))? else {
            return Ok(false);
        };
        let patch = Patch::Merge(objects::assignment(spec));
        let labelled = self
            .pods(&key.owner)
            .patch(&name, &PatchParams::default(), &patch)
            .await;
        // The attempt does not need the labels, as the store names its pod. By them, the reconciler,
        // `delete` and people find the pod.
        if let Err(error) = labelled {
            tracing::warn!(name, %key, %error, "a warm pod is not labelled with its attempt");
        }
        Ok(true)
    }

    async fn start_pod(
        &self,
        spec: &AttemptSpec,
        remote: &RemoteFiles,
    ) -> Result<(), RuntimeError> {
        let key = spec.key.clone();
        let name = objects::pod_name(&key);
        let runtime_endpoint = self
            .endpoint
            .as_ref()
            .map(|endpoint| endpoint.for_pod(&name));
        let pod = match objects::pod(spec, &self.config, runtime_endpoint) {
            Ok(pod) => pod,
            Err(problem) => {
                let failure = Failure::new(FailureReason::StartFailed, problem);
                return write_failure(remote, &key, failure).await.map(drop);
            }
        };
        if objects::uses_workspace(spec)
            && let Err(problem) = self.ensure_workspace(spec).await
        {
            let failure = Failure::new(FailureReason::StartFailed, problem);
            return write_failure(remote, &key, failure).await.map(drop);
        }
        let parameters = PatchParams::apply(objects::MANAGER).force();
        let (pods, change) = (self.pods(&key.owner), Patch::Apply(&pod));
        let result = self
            .with_retries(&key, || async {
                // A pod cannot be changed. One that is there is this attempt's, at worst made with
                // other settings: an upgrade between two tries.
                match pods.get_opt(&name).await? {
                    Some(existing) => Ok(existing),
                    None => pods.patch(&name, &parameters, &change).await,
                }
            })
            .await;
        match result {
            ApiResult::Accepted => Ok(()),
            ApiResult::Rejected(reason) => {
                let hint = if reason.contains("violates PodSecurity") {
                    ". Tasks need a namespace of the level baseline (kubernetes.namespace)"
                } else {
                    ""
                };
                let message = format!("the cluster refuses its pod: {reason}{hint}");
                let failure = Failure::new(FailureReason::StartFailed, message);
                write_failure(remote, &key, failure).await.map(drop)
            }
        }
    }
}

/// Why the cluster does not take something now, for the one who waits for it.
fn retry_note(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if is_quota(status) => {
            format!(
                "it waits for room in the namespace's quota: {}",
                status.message
            )
        }
        kube::Error::Api(status) => {
            format!("the cluster does not take it now: {}", status.message)
        }
        other => format!("the cluster cannot be reached now: {}", chain(other)),
    }
}

fn is_quota(status: &kube::core::Status) -> bool {
    status.message.contains("exceeded quota")
}

/// Whether the API server would answer the same for ever. A full quota has room again when other pods
/// end. A conflict (409) passes too: of pods that are made at once, all but one meet it at the quota.
fn is_final(status: &kube::core::Status) -> bool {
    matches!(status.code, 400 | 403 | 404 | 405 | 413 | 422) && !is_quota(status)
}

/// What a deletion said; that it is not there is what was wanted.
fn ignore_not_found<T>(deleted: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop),
    }
}

/// Tells the warm pods of this process from all others.
fn pool_name() -> io::Result<String> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(hex::encode(bytes))
}

fn of_remote(key: &AttemptKey) -> impl FnOnce(RemoteError) -> RuntimeError {
    let key = key.clone();
    move |error| {
        let (what, unavailable) = ("reach its files in the store", error.is_away());
        let source = io::Error::other(error);
        if unavailable {
            RuntimeError::Unavailable { key, what, source }
        } else {
            RuntimeError::Io { key, what, source }
        }
    }
}

/// Writes the outcome of an attempt that has none of its launcher; the one that counts.
async fn write_failure(
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
            outputs_dir,
            working_dir: dir,
            copies_dir: None,
        }
    }

    fn workspace(&self, owner: &OwnerKey) -> SharedFolder {
        SharedFolder {
            path: PathBuf::from(objects::WORKSPACE),
            claim: Some(objects::workspace_claim(owner)),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            site: Site::Cluster,
            // A pod starts the launcher in place of the image's entry point, which is not looked up.
            entry_points: EntryPoints::Unknown,
            outputs: Destinations::FilesAndStores,
        }
    }

    async fn ensure(&self, spec: AttemptSpec) -> Result<(), RuntimeError> {
        let key = spec.key.clone();
        let remote = self.remote(&key)?;
        let done = remote.read_outcome().await.map_err(of_remote(&key))?;
        if done.is_some() {
            return Ok(());
        }
        let written = remote.write_spec(spec).await.map_err(of_remote(&key))?;
        let (mut spec, is_new) = written;
        // A spec of a former release has no namespace in its key, and notes are found by the key.
        spec.key = key;
        if let Some(operation) = spec.operation() {
            return self.run_operation(&spec, operation, &remote).await;
        }
        if self.assign_warm_pod(&spec, is_new, &remote).await? {
            return Ok(());
        }
        self.start_pod(&spec, &remote).await
    }

    fn slots(&self) -> &Slots {
        &self.slots
    }

    fn notes(&self) -> &Notes {
        &self.notes
    }

    async fn observe(&self, key: &AttemptKey) -> Result<Outcome, RuntimeError> {
        let remote = self.remote(key)?;
        let name = self.pod_of(key, &remote).await?;
        if let Some(outcome) = remote.read_outcome().await.map_err(of_remote(key))? {
            self.collect_garbage(key, &name).await;
            return Ok(outcome);
        }
        if !remote.has_spec().await.map_err(of_remote(key))? {
            return Err(RuntimeError::Unknown(key.clone()));
        }
        let failure = self.wait_for_pod_end(key, &name).await;
        let outcome = match remote.read_outcome().await.map_err(of_remote(key))? {
            Some(outcome) => outcome,
            None => self.outcome_for(key, &name, &remote, failure).await?,
        };
        self.collect_garbage(key, &name).await;
        Ok(outcome)
    }

    async fn logs(&self, key: &AttemptKey, request: LogRequest) -> Result<LogStream, RuntimeError> {
        let remote = self.remote(key)?;
        let done = remote.read_outcome().await.map_err(of_remote(key))?;
        let log = match done {
            Some(_) => self.stored_log(&remote, request.offset).await,
            None => {
                self.live_log(key, &self.pod_of(key, &remote).await?, request)
                    .await
            }
        };
        log.map_err(|source| RuntimeError::Io {
            key: key.clone(),
            what: "read its log",
            source,
        })
    }

    async fn stop(&self, key: &AttemptKey) -> Result<(), RuntimeError> {
        let remote = self.remote(key)?;
        // First: a launcher whose pod has to end looks for this mark. With it the launcher reports a
        // cancellation, without it an eviction.
        remote.request_stop().await.map_err(of_remote(key))?;
        let name = self.pod_of(key, &remote).await?;
        let pods = self.pods(&key.owner);
        let result = self
            .with_retries(key, || async {
                let parameters = DeleteParams::default();
                ignore_not_found(pods.delete(&name, &parameters).await)
            })
            .await;
        if let ApiResult::Rejected(reason) = result {
            return Err(RuntimeError::Io {
                key: key.clone(),
                what: "delete its pod",
                source: io::Error::other(reason),
            });
        }
        Ok(())
    }

    async fn delete(&self, owner: &OwnerKey) -> Result<(), RuntimeError> {
        let key = AttemptKey::of_owner(owner);
        let of_api = |error: kube::Error| RuntimeError::Io {
            key: key.clone(),
            what: "delete its owner's pods",
            source: io::Error::other(error),
        };
        let selectors = objects::LABELS.selectors(owner).join(",");
        let selected = ListParams::default().labels(&selectors);
        let parameters = DeleteParams::background();
        self.pods(owner)
            .delete_collection(&parameters, &selected)
            .await
            .map_err(of_api)?;
        self.claims(owner)
            .delete_collection(&parameters, &selected)
            .await
            .map_err(of_api)?;
        remote::delete_owner(&self.stores, &self.config.root, owner)
            .await
            .map_err(of_remote(&key))
    }
}
