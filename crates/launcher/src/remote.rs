//! An attempt's files in an object store: how a server and a pod find each other's words.
//!
//! ```text
//! <root>/attempts/<run>/<task>/<attempt>/           (of pipelines)
//! <root>/attempts/<domain>/<owner>/<item>/<attempt>/
//!   spec.json     what to do                      (written by the runtime)
//!   pod           the warm pod that does it        (none: the pod that is named by the attempt)
//!   started       made just before the command    (exclusively: it never runs twice)
//!   stop          somebody asked for the end
//!   log.txt       what the command printed        (once it has ended)
//!   outcome.json  how it ended                     (exclusively: the first one counts)
//! ```

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ferroflow_artifacts::stores::{self, Place, StoreError, Stores};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{AttemptKey, AttemptSpec, Outcome, OwnerKey};

/// The file that names an attempt's warm pod.
const POD: &str = "pod";

/// Why the store did not give or take a file.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The store.
    #[error("{file} of the attempt")]
    Store {
        /// Which file.
        file: &'static str,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// What is there is not what was written.
    #[error("{file} of the attempt is damaged")]
    Damaged {
        /// Which file.
        file: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The root leads nowhere.
    #[error(transparent)]
    Root(#[from] StoreError),
}

impl RemoteError {
    /// Whether the store is away, so that nobody knows more than before.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Store { source, .. } if stores::is_away(source))
    }
}

/// The wait before a file is created again.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// The files of one attempt.
#[derive(Debug, Clone)]
pub struct RemoteFiles {
    place: Place,
    retry_timeout: Duration,
}

/// A folder of attempts below `root`.
fn folder(stores: &Stores, root: &str, inner: &str) -> Result<Place, RemoteError> {
    let mut place = stores.open(root)?;
    place.path = place.below(Path::new(&format!("attempts/{inner}")))?;
    Ok(place)
}

impl RemoteFiles {
    /// The files of `key` below `root`.
    pub fn new(stores: &Stores, root: &str, key: &AttemptKey) -> Result<Self, RemoteError> {
        Ok(Self {
            place: folder(stores, root, &key.folder())?,
            retry_timeout: stores.retry_timeout(),
        })
    }

    /// The place of the log.
    pub fn log(&self) -> Place {
        Place {
            store: self.place.store.clone(),
            path: self.path("log.txt"),
        }
    }

    fn path(&self, file: &str) -> StorePath {
        self.place.path.clone().join(file)
    }

    /// Writes what is to be done unless that is written; the one that counts, and whether it is this
    /// one. Asking again after a crash may say it with other words, for example another trace.
    pub async fn write_spec(&self, spec: AttemptSpec) -> Result<(AttemptSpec, bool), RemoteError> {
        let file = "spec.json";
        let bytes =
            serde_json::to_vec(&spec).map_err(|source| RemoteError::Damaged { file, source })?;
        if self.create(file, bytes.into()).await? {
            return Ok((spec, true));
        }
        Ok((self.read_spec().await?.unwrap_or(spec), false))
    }

    /// What is to be done.
    pub async fn read_spec(&self) -> Result<Option<AttemptSpec>, RemoteError> {
        self.read("spec.json").await
    }

    /// Whether it was ever said what is to be done.
    pub async fn has_spec(&self) -> Result<bool, RemoteError> {
        self.exists("spec.json").await
    }

    /// Notes that a pod of another name than the attempt's does it.
    pub async fn assign_pod(&self, name: &str) -> Result<(), RemoteError> {
        let bytes = Bytes::copy_from_slice(name.as_bytes());
        self.place
            .store
            .put(&self.path(POD), bytes.into())
            .await
            .map(drop)
            .map_err(|source| RemoteError::Store { file: POD, source })
    }

    /// Takes that back.
    pub async fn unassign_pod(&self) -> Result<(), RemoteError> {
        match self.place.store.delete(&self.path(POD)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(RemoteError::Store { file: POD, source }),
        }
    }

    /// The pod of another name that does it, if there is one.
    pub async fn assigned_pod(&self) -> Result<Option<String>, RemoteError> {
        let found = self.bytes(POD).await?;
        Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Marks the command as started; `false` if somebody else did that before.
    pub async fn mark_started(&self) -> Result<bool, RemoteError> {
        // A request that is repeated because its answer was lost finds a mark, and the text says
        // whether it is its own. Of two pods for one attempt, only the one whose text is there may
        // run the command.
        let ours = Bytes::from(Uuid::new_v4().to_string());
        if self.create("started", ours.clone()).await? {
            return Ok(true);
        }
        Ok(self.bytes("started").await? == Some(ours))
    }

    /// Asks for the end to be taken for a cancellation.
    pub async fn request_stop(&self) -> Result<(), RemoteError> {
        self.create("stop", Bytes::new()).await.map(drop)
    }

    /// Whether that was asked.
    pub async fn stop_requested(&self) -> Result<bool, RemoteError> {
        self.exists("stop").await
    }

    /// Writes the outcome unless there is one; the one that counts.
    pub async fn write_outcome(&self, outcome: Outcome) -> Result<Outcome, RemoteError> {
        let file = "outcome.json";
        let bytes =
            serde_json::to_vec(&outcome).map_err(|source| RemoteError::Damaged { file, source })?;
        if self.create(file, bytes.into()).await? {
            return Ok(outcome);
        }
        Ok(self.read_outcome().await?.unwrap_or(outcome))
    }

    /// The outcome, once there is one.
    pub async fn read_outcome(&self) -> Result<Option<Outcome>, RemoteError> {
        self.read("outcome.json").await
    }

    /// Keeps a log that was had from elsewhere, unless there is one.
    pub async fn write_log(&self, log: Bytes) -> Result<(), RemoteError> {
        self.create("log.txt", log).await.map(drop)
    }

    /// Makes a file exclusively; `false` if it is there, be it from a try whose answer was lost.
    async fn create(&self, file: &'static str, bytes: Bytes) -> Result<bool, RemoteError> {
        let path = self.path(file);
        let begun = Instant::now();
        loop {
            let options = PutOptions::from(PutMode::Create);
            let put = self
                .place
                .store
                .put_opts(&path, bytes.clone().into(), options);
            match put.await {
                Ok(_) => return Ok(true),
                Err(object_store::Error::AlreadyExists { .. }) => return Ok(false),
                // The client repeats by itself only what does no harm when it is done twice.
                Err(error) if stores::is_away(&error) && begun.elapsed() < self.retry_timeout => {
                    sleep(RETRY_WAIT).await;
                }
                Err(source) => return Err(RemoteError::Store { file, source }),
            }
        }
    }

    async fn exists(&self, file: &'static str) -> Result<bool, RemoteError> {
        match self.place.store.head(&self.path(file)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(RemoteError::Store { file, source }),
        }
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        file: &'static str,
    ) -> Result<Option<T>, RemoteError> {
        let bytes = self.bytes(file).await?;
        bytes
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(|source| RemoteError::Damaged { file, source })
    }

    async fn bytes(&self, file: &'static str) -> Result<Option<Bytes>, RemoteError> {
        let of_store = |source| RemoteError::Store { file, source };
        match self.place.store.get(&self.path(file)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(of_store),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(of_store(error)),
        }
    }
}

/// Forgets the files of all attempts of an owner.
pub async fn delete_owner(
    stores: &Stores,
    root: &str,
    owner: &OwnerKey,
) -> Result<(), RemoteError> {
    let folder = folder(stores, root, &owner.folder())?;
    let listed = folder.store.list(Some(&folder.path));
    let paths = listed.map_ok(|object| object.location).boxed();
    let deleted = folder.store.delete_stream(paths);
    deleted
        .try_for_each(|_| async { Ok(()) })
        .await
        .map_err(|source| RemoteError::Store {
            file: "the folder",
            source,
        })
}
