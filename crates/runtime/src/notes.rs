//! What attempts that wait say of it: a full cluster, an image that is pulled, a store that is away.
//!
//! A note is for people. It changes nothing, may be lost, and is taken back when the command begins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ferroflow_launcher::AttemptKey;
use tokio::sync::watch;

type Subscribers = HashMap<AttemptKey, watch::Sender<Option<String>>>;

/// The notes of a runtime's attempts; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Subscribers>>);

impl Notes {
    /// Sets why an attempt waits; `None` when it waits no more. Setting the same again changes nothing.
    pub fn set(&self, key: &AttemptKey, note: Option<&str>) {
        let subscribers = self.subscribers();
        if let Some(subscriber) = subscribers.get(key) {
            subscriber.send_if_modified(|current| {
                let is_new = current.as_deref() != note;
                *current = note.map(str::to_owned);
                is_new
            });
        }
    }

    /// The notes of an attempt from now on.
    pub fn subscribe(&self, key: &AttemptKey) -> watch::Receiver<Option<String>> {
        let mut subscribers = self.subscribers();
        // Entries of attempts without a subscriber go when another one is subscribed to.
        subscribers.retain(|_, subscriber| !subscriber.is_closed());
        subscribers.entry(key.clone()).or_default().subscribe()
    }

    fn subscribers(&self) -> std::sync::MutexGuard<'_, Subscribers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::key;

    #[test]
    fn a_note_is_received_once_and_cleared() {
        let key = key("a", 1);
        let notes = Notes::default();
        // Nobody has subscribed: it is lost.
        notes.set(&key, Some("lost"));
        let mut note = notes.subscribe(&key);
        assert_eq!(*note.borrow_and_update(), None);

        notes.set(&key, Some("no node takes it"));
        assert_eq!(
            note.borrow_and_update().as_deref(),
            Some("no node takes it")
        );
        notes.set(&key, Some("no node takes it"));
        assert!(!note.has_changed().unwrap());
        notes.set(&key, None);
        assert_eq!(*note.borrow_and_update(), None);
    }
}
