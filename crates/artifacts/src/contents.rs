//! What content is now, compared with what was noted of it.
//!
//! A digest that was taken once is trusted as long as the stamp is the same. What was read again is
//! remembered with its stamp, so that content which changed once is not read every time.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use object_store::ObjectStoreExt as _;
use sha2::{Digest as _, Sha256};

use crate::digest;
use crate::stamp;
use crate::stores::{Place, StoreError, Stores};
use crate::transfer::{TransferError, of_file, of_store};

/// What was recorded of some content.
#[derive(Debug, Clone, Copy)]
pub struct RecordedContent<'a> {
    /// Where it is.
    pub uri: &'a str,
    /// `sha256:…` over it.
    pub digest: Option<&'a str>,
    /// Its stamp when the digest was taken.
    pub stamp: Option<&'a str>,
}

/// What became of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is what was noted, or nothing was noted and it is there.
    Same,
    /// It is there and something else.
    Changed,
    /// Nothing is there.
    Missing,
}

/// Places remembered at most; then all are forgotten.
const CACHE_MAX: usize = 10_000;

/// Looks at content.
#[derive(Debug, Clone)]
pub struct Contents {
    stores: Stores,
    /// By URI: a stamp and what was read when the content had it.
    cache: Arc<Mutex<HashMap<String, (String, String)>>>,
}

impl Contents {
    /// Content of these stores and of this machine.
    pub fn new(stores: Stores) -> Self {
        Self {
            stores,
            cache: Arc::default(),
        }
    }

    /// What stands for the content as it is now: its digest, or for objects that nobody has read their
    /// stamp; `None` when nothing is there.
    ///
    /// # Errors
    /// When its store is not one that is read, fails, or is away.
    pub async fn identity(
        &self,
        recorded: RecordedContent<'_>,
    ) -> Result<Option<String>, TransferError> {
        let place = match digest::local_path(recorded.uri) {
            Some(_) => None,
            None => Some(self.stores.open(recorded.uri)?),
        };
        let now = match &place {
            None => inspect_local(recorded.uri, stamp::of_path).await?,
            Some(place) => stamp::of_place(place).await?,
        };
        let Some(now) = now else {
            return Ok(None);
        };
        match (recorded.digest, recorded.stamp) {
            (Some(digest), Some(stamp)) if stamp == now => return Ok(Some(digest.to_owned())),
            // Nothing says that it changed, and reading it could take a transfer of any size.
            (Some(digest), None) if place.is_some() => return Ok(Some(digest.to_owned())),
            (None, _) if place.is_some() => return Ok(Some(now)),
            _ => {}
        }
        if let Some(cached) = self.cached(recorded.uri, &now) {
            return Ok(Some(cached));
        }
        let read = match &place {
            None => {
                let read = inspect_local(recorded.uri, digest::of_path).await?;
                read.map(|read| read.digest)
            }
            Some(place) => digest_of_place(place).await?,
        };
        if let Some(read) = &read {
            // Under the stamp from before the reading: if the content changed in between, its stamp is
            // another one, and it is read again.
            self.remember(recorded.uri, now, read.clone());
        }
        Ok(read)
    }

    /// Whether the content is what was noted.
    ///
    /// # Errors
    /// As [`Self::identity`].
    pub async fn state(&self, recorded: RecordedContent<'_>) -> Result<State, TransferError> {
        let Some(digest) = recorded.digest else {
            return Ok(State::Same);
        };
        Ok(match self.identity(recorded).await? {
            None => State::Missing,
            Some(found) if found == digest => State::Same,
            Some(_) => State::Changed,
        })
    }

    fn cached(&self, uri: &str, stamp: &str) -> Option<String> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (cached_stamp, digest) = cache.get(uri)?;
        (cached_stamp == stamp).then(|| digest.clone())
    }

    fn remember(&self, uri: &str, stamp: String, digest: String) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_MAX {
            // Only a cache: what is forgotten is read once more.
            cache.clear();
        }
        cache.insert(uri.to_owned(), (stamp, digest));
    }
}

/// Looks at content of this machine without holding up others.
async fn inspect_local<T: Send + 'static>(
    uri: &str,
    inspect: fn(&std::path::Path) -> io::Result<T>,
) -> Result<T, TransferError> {
    let path = digest::local_path(uri).ok_or_else(|| StoreError::Unknown(uri.to_owned()))?;
    let at = path.clone();
    let found = tokio::task::spawn_blocking(move || inspect(&at)).await;
    found
        .map_err(io::Error::other)
        .flatten()
        .map_err(of_file(&path))
}

/// The digest of what is at a place, as [`digest::of_path`] gives it for files and folders.
async fn digest_of_place(place: &Place) -> Result<Option<String>, TransferError> {
    let objects = stamp::objects(place).await?;
    let mut folder_hasher = Sha256::new();
    let mut is_folder = false;
    for object in &objects {
        let found = place.store.get(&object.location).await;
        let mut bytes = found.map_err(of_store(&object.location))?.into_stream();
        let mut file_hasher = Sha256::new();
        while let Some(chunk) = bytes.next().await {
            file_hasher.update(chunk.map_err(of_store(&object.location))?);
        }
        let parts = place.inner(&object.location);
        if parts.is_empty() {
            return Ok(Some(digest::hex_digest(file_hasher)));
        }
        is_folder = true;
        let file_digest = digest::hex_digest(file_hasher);
        folder_hasher.update(digest::folder_line(&file_digest, &parts.join("/")));
    }
    Ok(is_folder.then(|| digest::hex_digest(folder_hasher)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn recorded<'a>(uri: &'a str, digest: &'a str, stamp: &'a str) -> RecordedContent<'a> {
        RecordedContent {
            uri,
            digest: Some(digest),
            stamp: Some(stamp),
        }
    }

    #[tokio::test]
    async fn content_is_what_was_noted_until_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        fs::write(&path, "one").unwrap();
        let uri = path.display().to_string();
        let digest = digest::of_path(&path).unwrap().unwrap().digest;
        let stamp = stamp::of_path(&path).unwrap().unwrap();
        let contents = Contents::new(Stores::default());
        let state = async || {
            contents
                .state(recorded(&uri, &digest, &stamp))
                .await
                .unwrap()
        };

        assert_eq!(state().await, State::Same);
        // Another file with the same content is as good.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "one").unwrap();
        assert_eq!(state().await, State::Same);
        fs::write(&path, "two").unwrap();
        assert_eq!(state().await, State::Changed);
        fs::remove_file(&path).unwrap();
        assert_eq!(state().await, State::Missing);
    }

    #[tokio::test]
    async fn a_place_has_the_digest_of_the_files_that_went_there() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        fs::create_dir_all(folder.join("a")).unwrap();
        fs::write(folder.join("a/b"), "1").unwrap();
        fs::write(folder.join("a.txt"), "2").unwrap();
        let stored = Stores::default()
            .open(&folder.display().to_string())
            .unwrap();

        let files = digest::of_path(&folder).unwrap().unwrap().digest;

        assert_eq!(digest_of_place(&stored).await.unwrap(), Some(files));
    }

    #[tokio::test]
    async fn stores_that_are_not_read_say_so() {
        let contents = Contents::new(Stores::default());
        let error = contents
            .state(recorded("gs://bucket/x", "sha256:0", ""))
            .await;
        assert!(matches!(
            error,
            Err(TransferError::Place(StoreError::Unknown(_)))
        ));
    }
}
