//! Pods that wait for steps, so that a step need not wait for a pod (ADR 8). Off by default.
//!
//! ```text
//! reconciler  class in use ──► pods `ff-warm-…` ──► each asks for its attempt and waits
//! ensure      does one of the class wait? ──► its name into the store ──► the attempt to its launcher
//! ```
//!
//! A warm pod does one attempt and ends, as every other pod does, so no step sees what another one
//! left. Nothing relies on a waiting pod: without one, a step gets a pod of its own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferroflow_launcher::remote::{RemoteError, RemoteFiles};
use ferroflow_launcher::runtime_endpoint::TAKE_WAIT;
use ferroflow_launcher::spec::is_expanded;
use ferroflow_launcher::{AttemptKey, AttemptSpec, Resources};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::config::WarmConfig;
use super::objects;

/// How long a class gets no new pods after one of them could not start.
pub(super) const FAILURE_BACKOFF: Duration = Duration::from_mins(1);

/// What waiting pods must have in common with a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PodClass {
    pub(super) image: String,
    pub(super) resources: Resources,
    /// Whether the environment has what KFP promises.
    pub(super) kfp: bool,
}

impl PodClass {
    /// The class of an attempt; none for one that needs a pod made for it.
    pub(super) fn of(spec: &AttemptSpec) -> Option<Self> {
        // Kubernetes expands `$(NAME)` when a pod is made, and a warm one was made before.
        let expands = spec.env.iter().any(|(_, value)| is_expanded(value));
        let has_settings = spec
            .kfp
            .as_ref()
            .is_some_and(|kfp| !kfp.platform.is_empty());
        let special = has_settings
            || !spec.labels.is_empty()
            || expands
            || objects::uses_workspace(spec)
            || objects::uses_images(spec)
            || spec.operation().is_some();
        (!special).then(|| Self {
            image: spec.image.clone(),
            resources: spec.resources.clone(),
            kfp: spec.kfp.is_some(),
        })
    }
}

/// A class that steps have asked for.
#[derive(Debug, Clone, Copy)]
struct ClassUsage {
    last: Instant,
    /// After a failed start: no new pods before this.
    not_before: Instant,
}

/// A pod without an attempt.
struct WaitingPod {
    class: PodClass,
    /// There once its launcher has asked.
    request: Option<oneshot::Sender<AttemptKey>>,
}

#[derive(Default)]
struct State {
    classes: HashMap<PodClass, ClassUsage>,
    waiting: HashMap<String, WaitingPod>,
    /// Pods that were told their attempt; told again if they ask again.
    assigned: HashMap<String, AttemptKey>,
    created: u64,
}

/// The pods that wait, as this process knows them.
pub(super) struct WarmPool {
    config: WarmConfig,
    /// Tells our pods from those of other replicas.
    name: String,
    state: Mutex<State>,
    wake: Notify,
}

/// What the reconciler is to do.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Pods to create: their names and classes.
    pub(super) create: Vec<(String, PodClass)>,
    /// Pods to delete.
    pub(super) delete: Vec<String>,
}

impl WarmPool {
    /// A pool without pods.
    pub(super) fn new(config: WarmConfig, name: String) -> Self {
        Self {
            config,
            name,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Whether there are any warm pods.
    pub(super) fn is_enabled(&self) -> bool {
        self.config.size > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an attempt to a waiting pod of its class; the pod's name, or none if nobody waits.
    pub(super) async fn assign(
        &self,
        class: &PodClass,
        key: AttemptKey,
        remote: &RemoteFiles,
    ) -> Result<Option<String>, RemoteError> {
        self.record_use(class, Instant::now());
        while let Some((pod, request)) = self.pop_waiting(class) {
            // First the store: whoever observes the attempt must find the pod that has it. If this
            // process ends in between, the attempt is lost with the pod, and tried again.
            remote.assign_pod(&pod).await?;
            if self.deliver(&pod, request, key.clone()) {
                return Ok(Some(pod));
            }
            // The launcher has given up its request meanwhile: another pod is looked for.
            remote.unassign_pod().await?;
        }
        Ok(None)
    }

    /// Tells a waiting pod what it is to do; `false` if it no longer listens. Both changes are made
    /// under one lock, so a pod that asks again is told the attempt only if it has it.
    fn deliver(&self, pod: &str, request: oneshot::Sender<AttemptKey>, key: AttemptKey) -> bool {
        let mut state = self.state();
        let delivered = request.send(key.clone()).is_ok();
        if delivered {
            state.assigned.insert(pod.to_owned(), key);
        }
        delivered
    }

    fn record_use(&self, class: &PodClass, now: Instant) {
        let mut state = self.state();
        let usage = state.classes.entry(class.clone()).or_insert(ClassUsage {
            last: now,
            not_before: now,
        });
        usage.last = now;
        drop(state);
        self.wake.notify_one();
    }

    fn pop_waiting(&self, class: &PodClass) -> Option<(String, oneshot::Sender<AttemptKey>)> {
        let mut state = self.state();
        let ready = |pod: &WaitingPod| {
            pod.class == *class
                && pod
                    .request
                    .as_ref()
                    .is_some_and(|request| !request.is_closed())
        };
        let mut pods = state.waiting.iter();
        let (name, _) = pods.find(|(_, pod)| ready(pod))?;
        let name = name.clone();
        let request = state.waiting.remove(&name)?.request?;
        Some((name, request))
    }

    /// A pod asks for its attempt: it is told if there is one within [`TAKE_WAIT`]. The outer `None`
    /// means that there will never be one.
    pub(super) async fn wait_for_attempt(&self, pod: &str) -> Option<Option<AttemptKey>> {
        let assignment = {
            let mut state = self.state();
            // It asks again when the answer was lost.
            if let Some(key) = state.assigned.get(pod) {
                return Some(Some(key.clone()));
            }
            let (request, assignment) = oneshot::channel();
            state.waiting.get_mut(pod)?.request = Some(request);
            assignment
        };
        match tokio::time::timeout(TAKE_WAIT, assignment).await {
            Ok(Ok(key)) => Some(Some(key)),
            // A later request of the same pod took its place, or the pod is not wanted any more.
            Ok(Err(_)) | Err(_) => Some(None),
        }
    }

    /// A step finds no node: pods that wait must not be what it waits for.
    pub(super) fn release_waiting(&self) {
        let mut state = self.state();
        if state.waiting.is_empty() {
            return;
        }
        tracing::info!(
            pods = state.waiting.len(),
            "warm pods give way to a step that finds no node"
        );
        let later = Instant::now() + FAILURE_BACKOFF;
        for class in state.classes.values_mut() {
            class.not_before = later;
        }
        for pod in state.waiting.values_mut() {
            // Its launcher is answered without an attempt; the next plan deletes the pod.
            pod.request = None;
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A pod has ended or cannot start: it does not wait any more, and its class gets no other one
    /// for a while.
    pub(super) fn mark_lost(&self, pod: &str, now: Instant) {
        let mut state = self.state();
        state.assigned.remove(pod);
        if let Some(lost) = state.waiting.remove(pod)
            && let Some(class) = state.classes.get_mut(&lost.class)
        {
            class.not_before = now + FAILURE_BACKOFF;
        }
    }

    /// The names of pods that wait or were told their attempt.
    pub(super) fn pods(&self) -> Vec<String> {
        let state = self.state();
        state
            .waiting
            .keys()
            .chain(state.assigned.keys())
            .cloned()
            .collect()
    }

    /// Returns when there may be something to do.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Decides which pods are to be made and deleted; those count as waiting, or not, from now on.
    pub(super) fn plan(&self, now: Instant) -> Plan {
        let mut state = self.state();
        self.evict_classes(&mut state, now);
        let State {
            classes,
            waiting,
            created,
            ..
        } = &mut *state;
        let mut plan = Plan::default();
        let unwanted = |pod: &WaitingPod| {
            let class = classes.get(&pod.class);
            class.is_none_or(|class| class.not_before > now)
        };
        plan.delete = waiting
            .iter()
            .filter(|(_, pod)| unwanted(pod))
            .map(|(name, _)| name.clone())
            .collect();
        waiting.retain(|_, pod| !unwanted(pod));
        for (class, usage) in classes.iter() {
            let existing = waiting.values().filter(|pod| pod.class == *class).count();
            if usage.not_before > now {
                continue;
            }
            for _ in existing..self.config.size {
                *created += 1;
                let name = format!("ff-warm-{}-{created}", self.name);
                plan.create.push((name, class.clone()));
            }
        }
        for (name, class) in &plan.create {
            let class = class.clone();
            waiting.insert(
                name.clone(),
                WaitingPod {
                    class,
                    request: None,
                },
            );
        }
        plan
    }

    /// Classes that nobody used for long, and those that are too many.
    fn evict_classes(&self, state: &mut State, now: Instant) {
        let idle = Duration::from_secs(self.config.idle_s);
        state
            .classes
            .retain(|_, usage| now.saturating_duration_since(usage.last) < idle);
        while state.classes.len() > self.config.classes_max.max(1) {
            let oldest = state.classes.iter().min_by_key(|(_, usage)| usage.last);
            let Some(oldest) = oldest.map(|(class, _)| class.clone()) else {
                return;
            };
            state.classes.remove(&oldest);
        }
    }
}

/// Whether a pod is a warm one that never got an attempt.
pub(super) fn is_unused(pod: &Pod) -> bool {
    let labels = pod.labels();
    labels.contains_key(objects::WARM_LABEL) && objects::attempt_of(pod).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(image: &str) -> PodClass {
        PodClass {
            image: image.to_owned(),
            resources: Resources::default(),
            kfp: true,
        }
    }

    fn pool(size: usize) -> WarmPool {
        let config = WarmConfig {
            size,
            classes_max: 2,
            idle_s: 120,
        };
        WarmPool::new(config, "p".to_owned())
    }

    fn created(plan: &Plan) -> Vec<(&str, &str)> {
        let created = plan.create.iter();
        created
            .map(|(name, class)| (name.as_str(), class.image.as_str()))
            .collect()
    }

    #[tokio::test]
    async fn a_class_in_use_is_filled_once_and_given_up_when_nobody_uses_it() {
        let pool = pool(2);
        let now = Instant::now();
        assert_eq!(pool.plan(now), Plan::default());

        pool.record_use(&class("a"), now);
        let first = pool.plan(now);
        assert_eq!(
            created(&first),
            [("ff-warm-p-1", "a"), ("ff-warm-p-2", "a")]
        );
        assert_eq!(pool.plan(now), Plan::default());

        let mut later = pool.plan(now + Duration::from_secs(121));
        later.delete.sort();
        assert_eq!(later.delete, ["ff-warm-p-1", "ff-warm-p-2"]);
        assert_eq!(later.create, []);
    }

    #[tokio::test]
    async fn the_class_that_was_used_longest_ago_gives_way() {
        let pool = pool(1);
        let now = Instant::now();
        for (at, image) in ["a", "b", "c"].into_iter().enumerate() {
            pool.record_use(&class(image), now + Duration::from_secs(at as u64));
        }

        let plan = pool.plan(now + Duration::from_secs(3));
        let mut images: Vec<_> = created(&plan).into_iter().map(|(_, image)| image).collect();
        images.sort_unstable();
        assert_eq!(images, ["b", "c"]);
    }

    #[tokio::test]
    async fn a_class_whose_pod_could_not_start_waits_before_the_next() {
        let pool = pool(1);
        let now = Instant::now();
        pool.record_use(&class("a"), now);
        pool.plan(now);

        pool.mark_lost("ff-warm-p-1", now);
        assert_eq!(pool.plan(now), Plan::default());
        let later = pool.plan(now + FAILURE_BACKOFF);
        assert_eq!(created(&later), [("ff-warm-p-2", "a")]);
    }

    #[tokio::test]
    async fn an_attempt_is_given_to_one_pod() {
        let pool = std::sync::Arc::new(pool(1));
        let now = Instant::now();
        pool.record_use(&class("a"), now);
        pool.plan(now);
        assert_eq!(pool.wait_for_attempt("ff-warm-of-another").await, None);

        let asking = tokio::spawn({
            let pool = std::sync::Arc::clone(&pool);
            async move { pool.wait_for_attempt("ff-warm-p-1").await }
        });
        let request = loop {
            if let Some(request) = pool.pop_waiting(&class("a")) {
                break request;
            }
            tokio::task::yield_now().await;
        };
        assert!(pool.pop_waiting(&class("a")).is_none());
        let key = crate::tests::key("a", 1);
        request.1.send(key.clone()).unwrap();

        assert_eq!(asking.await.unwrap(), Some(Some(key)));
    }

    #[tokio::test]
    async fn pods_give_way_to_a_step_that_finds_no_node() {
        let pool = pool(1);
        let now = Instant::now();
        pool.record_use(&class("a"), now);
        pool.plan(now);

        pool.release_waiting();

        assert_eq!(pool.plan(now).delete, ["ff-warm-p-1"]);
        assert_eq!(pool.plan(now), Plan::default());
    }
}
