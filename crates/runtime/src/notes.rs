//! What attempts that wait say of it: a full cluster, an image that is pulled, a store that is away.
//!
//! A note is for people. It changes nothing, may be lost, and is taken back when the command begins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ferroflow_launcher::AttemptKey;
use tokio::sync::watch;

type Listeners = HashMap<AttemptKey, watch::Sender<Option<String>>>;

/// The notes of a runtime's attempts; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Listeners>>);

impl Notes {
    /// Says why an attempt waits; `None` when it waits no more. Saying the same again is nothing.
    pub fn say(&self, key: &AttemptKey, note: Option<&str>) {
        let listeners = self.listeners();
        if let Some(listener) = listeners.get(key) {
            listener.send_if_modified(|said| {
                let is_new = said.as_deref() != note;
                *said = note.map(str::to_owned);
                is_new
            });
        }
    }

    /// Hears what an attempt says from now on.
    pub fn listen(&self, key: &AttemptKey) -> watch::Receiver<Option<String>> {
        let mut listeners = self.listeners();
        // Entries of attempts that nobody listens to any more go when another one is listened to.
        listeners.retain(|_, listener| !listener.is_closed());
        listeners.entry(key.clone()).or_default().subscribe()
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::key;

    #[test]
    fn a_note_is_heard_once_and_taken_back() {
        let key = key("a", 1);
        let notes = Notes::default();
        // Nobody listens: it is lost.
        notes.say(&key, Some("lost"));
        let mut heard = notes.listen(&key);
        assert_eq!(*heard.borrow_and_update(), None);

        notes.say(&key, Some("no node takes it"));
        assert_eq!(
            heard.borrow_and_update().as_deref(),
            Some("no node takes it")
        );
        notes.say(&key, Some("no node takes it"));
        assert!(!heard.has_changed().unwrap());
        notes.say(&key, None);
        assert_eq!(*heard.borrow_and_update(), None);
    }
}
