//! Reconciles pods: fills the pool of warm ones, and deletes what nobody needs any more.
//!
//! A pod is deleted by whoever observed its attempt. If that one died in between, the pod is found
//! here: it has ended, its outcome is in the store, and nobody has looked after it for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ferroflow_artifacts::stores::Stores;
use ferroflow_launcher::remote::RemoteFiles;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::config::KubernetesConfig;
use super::index::{PodIndex, PodState};
use super::launchers::LauncherEndpoint;
use super::verdict::{Verdict, judge};
use super::warm::{PodClass, WarmPool, is_unused};
use super::{ignore_not_found, objects};

/// How often everything is looked at without being asked to.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(2);

/// How long an ended pod is left to whoever observes its attempt.
const ENDED_RETENTION: Duration = Duration::from_secs(30);

/// Works for one runtime.
pub(super) struct PodReconciler {
    pub(super) pool: Arc<WarmPool>,
    pub(super) index: Arc<PodIndex>,
    pub(super) pods: Api<Pod>,
    pub(super) config: KubernetesConfig,
    pub(super) stores: Stores,
    /// Without it there are no warm pods.
    pub(super) endpoint: Option<LauncherEndpoint>,
}

impl PodReconciler {
    /// Works until the handle is dropped.
    pub(super) fn start(self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut ended = HashMap::new();
            loop {
                self.tick().await;
                self.sweep(&mut ended).await;
                tokio::select! {
                    () = self.pool.wait() => {}
                    () = tokio::time::sleep(RECONCILE_INTERVAL) => {}
                }
            }
        }))
    }

    async fn tick(&self) {
        for name in self.pool.pods() {
            match self.index.state(&name) {
                PodState::Present(pod) if matches!(judge(&pod), Verdict::Active) => {}
                // The watch has not told of it yet, or it is gone: the index forgets pods that are
                // gone when nobody waits for them.
                PodState::Unknown => {}
                PodState::Present(_) | PodState::Absent => {
                    self.pool.mark_lost(&name, Instant::now());
                }
            }
        }
        let wanted = self.pool.pods();
        // Also those that a predecessor or a dead replica left: they end by themselves.
        let finished = self.index.find(|pod| {
            is_unused(pod)
                && matches!(judge(pod), Verdict::Ended(_))
                && pod.metadata.deletion_timestamp.is_none()
        });
        let finished = finished.iter().map(|pod| pod.name_any());
        let finished = finished.filter(|name| !wanted.contains(name));
        let plan = self.pool.plan(Instant::now());
        for name in finished.chain(plan.delete) {
            self.delete(&name).await;
        }
        for (name, class) in plan.create {
            self.create(&name, &class).await;
        }
    }

    /// Deletes pods of attempts that ended `ENDED_RETENTION` ago and have an outcome; `ended` remembers
    /// since when each has been seen like that.
    async fn sweep(&self, ended: &mut HashMap<String, Instant>) {
        let finished = self.index.find(|pod| {
            matches!(judge(pod), Verdict::Ended(_)) && pod.metadata.deletion_timestamp.is_none()
        });
        let now = Instant::now();
        let mut waiting = HashMap::new();
        for pod in finished {
            let name = pod.name_any();
            let since = ended.get(&name).copied().unwrap_or(now);
            if now.saturating_duration_since(since) < ENDED_RETENTION {
                waiting.insert(name, since);
            } else if self.has_outcome(&pod).await {
                // Only with an outcome: without one the attempt is still to be judged by this pod.
                self.delete(&name).await;
            }
        }
        *ended = waiting;
    }

    /// Whether the store has the outcome of the pod's attempt; no while that cannot be known.
    async fn has_outcome(&self, pod: &Pod) -> bool {
        let Some(key) = objects::attempt_of(pod) else {
            return false;
        };
        let Ok(remote) = RemoteFiles::new(&self.stores, &self.config.root, &key) else {
            return false;
        };
        matches!(remote.read_outcome().await, Ok(Some(_)))
    }

    async fn create(&self, name: &str, class: &PodClass) {
        let Some(endpoint) = &self.endpoint else {
            return;
        };
        let pod = objects::warm_pod(name, class, &self.config, endpoint.for_pod(name));
        let parameters = PatchParams::apply(objects::MANAGER).force();
        let created = self
            .pods
            .patch(name, &parameters, &Patch::Apply(&pod))
            .await;
        if let Err(error) = created {
            tracing::warn!(name, %error, "a warm pod cannot be made, steps get pods of their own");
            self.pool.mark_lost(name, Instant::now());
        }
    }

    async fn delete(&self, name: &str) {
        let deleted = self.pods.delete(name, &DeleteParams::background()).await;
        if let Err(error) = ignore_not_found(deleted) {
            tracing::warn!(name, %error, "a warm pod is left behind");
        }
    }
}
