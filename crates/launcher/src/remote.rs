//! An attempt's files in an object store: how a server and a pod find each other's words.
//!
//! ```text
//! <root>/attempts/<run>/<task>/<attempt>/
//!   spec.json     what to do                      (written by the runtime)
//!   started       made just before the command    (exclusively: it never runs twice)
//!   stop          somebody asked for the end
//!   log.txt       what the command printed        (once it has ended)
//!   outcome.json  the report                      (exclusively: the first one counts)
//! ```

use std::path::Path;

use bytes::Bytes;
use ferroflow_artifacts::stores::{Place, StoreError, Stores};
use ferroflow_types::RunId;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};

use crate::{AttemptKey, AttemptSpec, Outcome};

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

/// The files of one attempt.
#[derive(Debug, Clone)]
pub struct RemoteFiles {
    place: Place,
}

/// The folder of a run's attempts below `root`.
pub fn run_folder(stores: &Stores, root: &str, run: RunId) -> Result<Place, RemoteError> {
    let mut place = stores.open(root)?;
    place.path = place.below(Path::new(&format!("attempts/{run}")))?;
    Ok(place)
}

impl RemoteFiles {
    /// The files of `key` below `root`.
    pub fn new(stores: &Stores, root: &str, key: &AttemptKey) -> Result<Self, RemoteError> {
        let mut place = run_folder(stores, root, key.run)?;
        place.path = place.below(Path::new(&format!("{}/{}", key.task, key.attempt)))?;
        Ok(Self { place })
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

    /// Writes what is to be done unless that is written; the one that counts. Asking again after a
    /// crash may say it with other words, for example another trace.
    pub async fn write_spec(&self, spec: AttemptSpec) -> Result<AttemptSpec, RemoteError> {
        let file = "spec.json";
        let bytes =
            serde_json::to_vec(&spec).map_err(|source| RemoteError::Damaged { file, source })?;
        if self.create(file, bytes.into()).await? {
            return Ok(spec);
        }
        Ok(self.read_spec().await?.unwrap_or(spec))
    }

    /// What is to be done.
    pub async fn read_spec(&self) -> Result<Option<AttemptSpec>, RemoteError> {
        self.read("spec.json").await
    }

    /// Whether it was ever said what is to be done.
    pub async fn is_known(&self) -> Result<bool, RemoteError> {
        self.exists("spec.json").await
    }

    /// Marks the command as started; `false` if that was done before.
    pub async fn mark_started(&self) -> Result<bool, RemoteError> {
        self.create("started", Bytes::new()).await
    }

    /// Asks for the end to be taken for a cancellation.
    pub async fn ask_stop(&self) -> Result<(), RemoteError> {
        self.create("stop", Bytes::new()).await.map(drop)
    }

    /// Whether that was asked.
    pub async fn stop_asked(&self) -> Result<bool, RemoteError> {
        self.exists("stop").await
    }

    /// Writes the report unless there is one; the one that counts.
    pub async fn write_outcome(&self, outcome: Outcome) -> Result<Outcome, RemoteError> {
        let file = "outcome.json";
        let bytes =
            serde_json::to_vec(&outcome).map_err(|source| RemoteError::Damaged { file, source })?;
        if self.create(file, bytes.into()).await? {
            return Ok(outcome);
        }
        Ok(self.read_outcome().await?.unwrap_or(outcome))
    }

    /// The report, once there is one.
    pub async fn read_outcome(&self) -> Result<Option<Outcome>, RemoteError> {
        self.read("outcome.json").await
    }

    /// Keeps a log that was had from elsewhere, unless there is one.
    pub async fn write_log(&self, log: Bytes) -> Result<(), RemoteError> {
        self.create("log.txt", log).await.map(drop)
    }

    async fn create(&self, file: &'static str, bytes: Bytes) -> Result<bool, RemoteError> {
        let options = PutOptions::from(PutMode::Create);
        let path = self.path(file);
        let put = self.place.store.put_opts(&path, bytes.into(), options);
        match put.await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(RemoteError::Store { file, source }),
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
        let of_store = |source| RemoteError::Store { file, source };
        let found = match self.place.store.get(&self.path(file)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(of_store(error)),
        };
        let bytes = found.bytes().await.map_err(of_store)?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| RemoteError::Damaged { file, source })
    }
}

/// Forgets the files of all attempts of a run.
pub async fn delete_run(stores: &Stores, root: &str, run: RunId) -> Result<(), RemoteError> {
    let folder = run_folder(stores, root, run)?;
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
