//! What is known of our pods: one watch of the namespace, many who wait.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::objects::{MANAGED_BY_LABEL, MANAGER};

/// The last known state of a pod.
#[derive(Debug, Clone, Default)]
pub(super) enum PodState {
    /// Nobody has said anything of it yet.
    #[default]
    Unknown,
    /// It is there.
    Present(Arc<Pod>),
    /// It was there, or should have been.
    Absent,
}

/// What is known of a pod.
#[derive(Debug, Clone, Default)]
pub(super) struct PodEntry {
    /// Its last known state.
    pub(super) state: PodState,
    /// Its launcher has said that the attempt's outcome is in the store.
    pub(super) reported: bool,
    /// A direct answer of the API told of it while pods are listed: the list may be older.
    newer_than_list: bool,
}

type Pods = HashMap<String, watch::Sender<PodEntry>>;

/// The watch and those who wait for what it says.
pub(super) struct PodIndex {
    pods: Arc<Mutex<Pods>>,
    watch_task: JoinHandle<()>,
}

impl Drop for PodIndex {
    fn drop(&mut self) {
        self.watch_task.abort();
    }
}

impl PodIndex {
    /// Starts to watch.
    pub(super) fn start(api: Api<Pod>) -> Self {
        let pods = Arc::<Mutex<Pods>>::default();
        let watch_task = tokio::spawn(watch_pods(api, Arc::clone(&pods)));
        Self { pods, watch_task }
    }

    /// What is known of a pod, and what will be.
    pub(super) fn subscribe(&self, name: &str) -> watch::Receiver<PodEntry> {
        let mut pods = lock(&self.pods);
        let sender = pods.entry(name.to_owned()).or_default();
        sender.subscribe()
    }

    /// The last known state of a pod.
    pub(super) fn state(&self, name: &str) -> PodState {
        let pods = lock(&self.pods);
        pods.get(name)
            .map(|pod| pod.borrow().state.clone())
            .unwrap_or_default()
    }

    /// Pods that are there and match.
    pub(super) fn find(&self, matches: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let pods = lock(&self.pods);
        let states = pods.values().map(|pod| pod.borrow().state.clone());
        states
            .filter_map(|state| match state {
                PodState::Present(pod) if matches(&pod) => Some(pod),
                _ => None,
            })
            .collect()
    }

    /// Records that a launcher has reported.
    pub(super) fn record_report(&self, name: &str) {
        let mut pods = lock(&self.pods);
        let sender = pods.entry(name.to_owned()).or_default();
        sender.send_modify(|entry| entry.reported = true);
    }

    /// Records what a direct answer of the API said.
    pub(super) fn record(&self, name: &str, state: PodState) {
        let mut pods = lock(&self.pods);
        set_state(&mut pods, name, state);
        if let Some(sender) = pods.get(name) {
            // `false`: nobody has to be woken for this mark.
            sender.send_if_modified(|entry| {
                entry.newer_than_list = true;
                false
            });
        }
    }
}

fn lock(pods: &Mutex<Pods>) -> std::sync::MutexGuard<'_, Pods> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set_state(pods: &mut Pods, name: &str, state: PodState) {
    if let Some(sender) = pods.get(name) {
        sender.send_modify(|entry| entry.state = state);
    } else if matches!(state, PodState::Present(_)) {
        // Only pods that are there get an entry unasked: one that is gone needs none if nobody
        // waits for it.
        let entry = PodEntry {
            state,
            ..PodEntry::default()
        };
        pods.insert(name.to_owned(), watch::Sender::new(entry));
    }
}

async fn watch_pods(api: Api<Pod>, pods: Arc<Mutex<Pods>>) {
    let config = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGER}"));
    loop {
        let mut listed = HashSet::new();
        let events = watcher::watcher(api.clone(), config.clone());
        let mut events = std::pin::pin!(events);
        loop {
            match events.try_next().await {
                Ok(Some(event)) => apply_event(&pods, event, &mut listed),
                Ok(None) => break,
                // The watcher starts again by itself at the next poll.
                Err(error) => {
                    tracing::warn!(%error, "pods cannot be watched, trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

fn apply_event(pods: &Mutex<Pods>, event: Event<Pod>, listed: &mut HashSet<String>) {
    let mut pods = lock(pods);
    match event {
        Event::Init => {
            listed.clear();
            // Direct answers that came before this list are older than it.
            for sender in pods.values() {
                sender.send_if_modified(|entry| {
                    entry.newer_than_list = false;
                    false
                });
            }
        }
        Event::InitApply(pod) => {
            let name = pod.name_any();
            set_state(&mut pods, &name, PodState::Present(Arc::new(pod)));
            listed.insert(name);
        }
        Event::InitDone => {
            for (name, sender) in pods.iter() {
                let entry = sender.borrow().clone();
                // A pod that a direct answer told of meanwhile may be newer than the list. The
                // watch that follows tells what becomes of it.
                let missing = !listed.contains(name) && !entry.newer_than_list;
                if missing && matches!(entry.state, PodState::Present(_)) {
                    sender.send_modify(|entry| entry.state = PodState::Absent);
                }
            }
            listed.clear();
        }
        Event::Apply(pod) => {
            let name = pod.name_any();
            set_state(&mut pods, &name, PodState::Present(Arc::new(pod)));
        }
        Event::Delete(pod) => set_state(&mut pods, &pod.name_any(), PodState::Absent),
    }
    // Whoever waits for a pod holds a receiver. One that is gone and has none is forgotten.
    pods.retain(|_, sender| {
        !sender.is_closed() || matches!(sender.borrow().state, PodState::Present(_))
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    /// An index whose watch never says anything by itself.
    fn index() -> PodIndex {
        PodIndex {
            pods: Arc::default(),
            watch_task: tokio::spawn(std::future::pending()),
        }
    }

    #[tokio::test]
    async fn a_pod_that_is_made_while_others_are_listed_is_not_gone() {
        let index = index();
        let mut listed = HashSet::new();
        let (_old, _new) = (index.subscribe("old"), index.subscribe("new"));
        index.record("old", PodState::Present(Arc::new(pod("old"))));

        apply_event(&index.pods, Event::Init, &mut listed);
        index.record("new", PodState::Present(Arc::new(pod("new"))));
        apply_event(&index.pods, Event::InitDone, &mut listed);

        assert!(matches!(index.state("old"), PodState::Absent));
        assert!(matches!(index.state("new"), PodState::Present(_)));
        // The next list knows it.
        apply_event(&index.pods, Event::Init, &mut listed);
        apply_event(&index.pods, Event::InitDone, &mut listed);
        assert!(matches!(index.state("new"), PodState::Absent));
    }
}
