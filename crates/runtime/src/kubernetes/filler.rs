//! Keeps the pool of warm pods filled: makes pods, notices those that ended, deletes the unwanted.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::config::KubernetesConfig;
use super::index::{PodIndex, Seen};
use super::launchers::Door;
use super::objects;
use super::verdict::{Verdict, judge};
use super::warm::{Class, WarmPool, is_unused};

/// How often everything is looked at without being asked to.
const PERIOD: Duration = Duration::from_secs(2);

/// Works for one pool.
pub(super) struct Filler {
    pub(super) pool: Arc<WarmPool>,
    pub(super) index: Arc<PodIndex>,
    pub(super) pods: Api<Pod>,
    pub(super) config: KubernetesConfig,
    pub(super) door: Door,
}

impl Filler {
    /// Fills the pool until the handle is dropped.
    pub(super) fn start(self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                self.tick().await;
                tokio::select! {
                    () = self.pool.wait() => {}
                    () = tokio::time::sleep(PERIOD) => {}
                }
            }
        }))
    }

    async fn tick(&self) {
        for name in self.pool.pods() {
            match self.index.seen(&name) {
                Seen::There(pod) if matches!(judge(&pod), Verdict::AtWork) => {}
                // Made just now, or forgotten by the watch: it is asked for, and known next time.
                Seen::Unknown => {}
                Seen::There(_) | Seen::Gone => self.pool.lose(&name, Instant::now()),
            }
        }
        let wanted = self.pool.pods();
        // Also those that a predecessor or a dead replica left: they end by themselves.
        let over = self.index.find(|pod| {
            is_unused(pod)
                && matches!(judge(pod), Verdict::Ended(_))
                && pod.metadata.deletion_timestamp.is_none()
        });
        let over = over.iter().map(|pod| pod.name_any());
        let over = over.filter(|name| !wanted.contains(name));
        let plan = self.pool.plan(Instant::now());
        for name in over.chain(plan.delete) {
            self.delete(&name).await;
        }
        for (name, class) in plan.make {
            self.make(&name, &class).await;
        }
    }

    async fn make(&self, name: &str, class: &Class) {
        let pod = objects::warm_pod(name, class, &self.config, self.door.home(name));
        let parameters = PatchParams::apply(objects::MANAGER).force();
        let made = self
            .pods
            .patch(name, &parameters, &Patch::Apply(&pod))
            .await;
        if let Err(error) = made {
            tracing::warn!(name, %error, "a warm pod cannot be made, steps get pods of their own");
            self.pool.lose(name, Instant::now());
        }
    }

    async fn delete(&self, name: &str) {
        match self.pods.delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(name, %error, "a warm pod is left behind"),
            Ok(_) => {}
        }
    }
}
