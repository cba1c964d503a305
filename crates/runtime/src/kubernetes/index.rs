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

use super::objects::{MANAGED, MANAGER};

/// A pod as it was seen last.
#[derive(Debug, Clone, Default)]
pub(super) enum Seen {
    /// Nobody has said anything of it yet.
    #[default]
    Unknown,
    /// It is there.
    There(Arc<Pod>),
    /// It was there, or should have been.
    Gone,
}

/// What is known of a pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// As it was seen last.
    pub(super) seen: Seen,
    /// Its launcher has said that the attempt's outcome is in the store.
    pub(super) reported: bool,
    /// A direct answer of the API told of it while pods are listed: the list may be older.
    noted: bool,
}

type Pods = HashMap<String, watch::Sender<Known>>;

/// The watch and those who wait for what it says.
pub(super) struct PodIndex {
    pods: Arc<Mutex<Pods>>,
    watching: JoinHandle<()>,
}

impl Drop for PodIndex {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl PodIndex {
    /// Starts to watch.
    pub(super) fn start(api: Api<Pod>) -> Self {
        let pods = Arc::<Mutex<Pods>>::default();
        let watching = tokio::spawn(watch_pods(api, Arc::clone(&pods)));
        Self { pods, watching }
    }

    /// What is known of a pod, and what will be.
    pub(super) fn subscribe(&self, name: &str) -> watch::Receiver<Known> {
        let mut pods = lock(&self.pods);
        let sender = pods.entry(name.to_owned()).or_default();
        sender.subscribe()
    }

    /// As it was seen last.
    pub(super) fn seen(&self, name: &str) -> Seen {
        let pods = lock(&self.pods);
        pods.get(name)
            .map(|pod| pod.borrow().seen.clone())
            .unwrap_or_default()
    }

    /// Pods that are there and match.
    pub(super) fn find(&self, matches: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let pods = lock(&self.pods);
        let seen = pods.values().map(|pod| pod.borrow().seen.clone());
        seen.filter_map(|seen| match seen {
            Seen::There(pod) if matches(&pod) => Some(pod),
            _ => None,
        })
        .collect()
    }

    /// Takes note of a launcher's word.
    pub(super) fn note_report(&self, name: &str) {
        let mut pods = lock(&self.pods);
        let known = pods.entry(name.to_owned()).or_default();
        known.send_modify(|known| known.reported = true);
    }

    /// Takes note of what a direct answer of the API said.
    pub(super) fn note(&self, name: &str, seen: Seen) {
        let mut pods = lock(&self.pods);
        tell(&mut pods, name, seen);
        if let Some(sender) = pods.get(name) {
            // `false`: nobody has to be woken for this mark.
            sender.send_if_modified(|known| {
                known.noted = true;
                false
            });
        }
    }
}

fn lock(pods: &Mutex<Pods>) -> std::sync::MutexGuard<'_, Pods> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(pods: &mut Pods, name: &str, seen: Seen) {
    if let Some(sender) = pods.get(name) {
        sender.send_modify(|known| known.seen = seen);
    } else if matches!(seen, Seen::There(_)) {
        // Only pods that are there get an entry unasked: one that is gone needs none if nobody
        // waits for it.
        let known = Known {
            seen,
            ..Known::default()
        };
        pods.insert(name.to_owned(), watch::Sender::new(known));
    }
}

async fn watch_pods(api: Api<Pod>, pods: Arc<Mutex<Pods>>) {
    let config = watcher::Config::default().labels(&format!("{MANAGED}={MANAGER}"));
    loop {
        let mut listed = HashSet::new();
        let events = watcher::watcher(api.clone(), config.clone());
        let mut events = std::pin::pin!(events);
        loop {
            match events.try_next().await {
                Ok(Some(event)) => take(&pods, event, &mut listed),
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

fn take(pods: &Mutex<Pods>, event: Event<Pod>, listed: &mut HashSet<String>) {
    let mut pods = lock(pods);
    match event {
        Event::Init => {
            listed.clear();
            // Direct answers that came before this list are older than it.
            for sender in pods.values() {
                sender.send_if_modified(|known| {
                    known.noted = false;
                    false
                });
            }
        }
        Event::InitApply(pod) => {
            let name = pod.name_any();
            tell(&mut pods, &name, Seen::There(Arc::new(pod)));
            listed.insert(name);
        }
        Event::InitDone => {
            for (name, sender) in pods.iter() {
                let known = sender.borrow().clone();
                // A pod that a direct answer told of meanwhile may be newer than the list. The
                // watch that follows tells what becomes of it.
                let missing = !listed.contains(name) && !known.noted;
                if missing && matches!(known.seen, Seen::There(_)) {
                    sender.send_modify(|known| known.seen = Seen::Gone);
                }
            }
            listed.clear();
        }
        Event::Apply(pod) => {
            let name = pod.name_any();
            tell(&mut pods, &name, Seen::There(Arc::new(pod)));
        }
        Event::Delete(pod) => tell(&mut pods, &pod.name_any(), Seen::Gone),
    }
    // Whoever waits for a pod holds a receiver. One that is gone and has none is forgotten.
    pods.retain(|_, sender| !sender.is_closed() || matches!(sender.borrow().seen, Seen::There(_)));
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
            watching: tokio::spawn(std::future::pending()),
        }
    }

    #[tokio::test]
    async fn a_pod_that_is_made_while_others_are_listed_is_not_gone() {
        let index = index();
        let mut listed = HashSet::new();
        let (_old, _new) = (index.subscribe("old"), index.subscribe("new"));
        index.note("old", Seen::There(Arc::new(pod("old"))));

        take(&index.pods, Event::Init, &mut listed);
        index.note("new", Seen::There(Arc::new(pod("new"))));
        take(&index.pods, Event::InitDone, &mut listed);

        assert!(matches!(index.seen("old"), Seen::Gone));
        assert!(matches!(index.seen("new"), Seen::There(_)));
        // The next list knows it.
        take(&index.pods, Event::Init, &mut listed);
        take(&index.pods, Event::InitDone, &mut listed);
        assert!(matches!(index.seen("new"), Seen::Gone));
    }
}
