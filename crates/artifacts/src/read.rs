//! Reading an artifact's content as a stream.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;

use crate::digest;
use crate::stores::{Place, StoreError, Stores};

/// Why content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its store is not one that this installation reads.
    #[error("{0} is in a store that this installation does not read")]
    Store(String),
    /// Nothing is there.
    #[error("{0} does not exist")]
    Missing(String),
    /// It is a folder, and no file of it was named.
    #[error("{uri} is a folder: name one of its files with `path`, for example {example}")]
    Folder {
        /// The folder.
        uri: String,
        /// One of its files.
        example: String,
    },
    /// The path leads out of the artifact.
    #[error("path {0:?} leads out of the artifact")]
    Outside(String),
    /// The store failed.
    #[error("cannot read {uri}")]
    Failed {
        /// What was read.
        uri: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Content that is being read.
pub struct ContentStream {
    /// The size in bytes.
    pub size_bytes: u64,
    /// The file's name.
    pub name: String,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes, object_store::Error>>,
}

fn failed(uri: &str, source: Box<dyn std::error::Error + Send + Sync>) -> ReadError {
    ReadError::Failed {
        uri: uri.to_owned(),
        source,
    }
}

fn open_store(stores: &Stores, uri: &str) -> Result<Place, ReadError> {
    stores.open(uri).map_err(|error| match error {
        StoreError::Unknown(uri) => ReadError::Store(uri),
        other => failed(uri, other.into()),
    })
}

/// Opens the content of `uri`, or of the file `inner` in the folder that it is.
pub async fn open(stores: &Stores, uri: &str, inner: &str) -> Result<ContentStream, ReadError> {
    let failed = |source| failed(uri, source);
    let mut place = open_store(stores, uri)?;
    if !inner.is_empty() {
        let inside = digest::join_inside(std::path::Path::new(""), inner)
            .ok_or_else(|| ReadError::Outside(inner.to_owned()))?;
        place.path = place.below(&inside).map_err(|error| failed(error.into()))?;
    }
    let found = match place.store.get(&place.path).await {
        Ok(found) => found,
        Err(error) => {
            // A folder has no content of its own, only what is below it.
            let example = first_below(&place).await;
            return Err(match (example, error) {
                (Some(example), _) => ReadError::Folder {
                    uri: uri.to_owned(),
                    example,
                },
                (None, object_store::Error::NotFound { .. }) => {
                    ReadError::Missing(format!("{uri}/{inner}").trim_end_matches('/').to_owned())
                }
                (None, error) => failed(error.into()),
            });
        }
    };
    Ok(ContentStream {
        size_bytes: found.meta.size,
        name: place.path.filename().unwrap_or_default().to_owned(),
        bytes: found.into_stream().boxed(),
    })
}

/// A file of an artifact that is a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Below the artifact, with `/` between its parts.
    pub path: String,
    /// In bytes.
    pub size_bytes: u64,
}

/// The files below `uri` in the order of their paths, from behind `after` on.
pub async fn files(stores: &Stores, uri: &str, after: &str) -> Result<Vec<FileEntry>, ReadError> {
    let place = open_store(stores, uri)?;
    let mut listed = place.store.list(Some(&place.path));
    let mut files = Vec::new();
    while let Some(found) = listed
        .try_next()
        .await
        .map_err(|error| failed(uri, error.into()))?
    {
        let path = place.inner(&found.location).join("/");
        // The artifact itself, when it is a file, is none of its files.
        if path.as_str() > after && !path.is_empty() {
            let size_bytes = found.size;
            files.push(FileEntry { path, size_bytes });
        }
    }
    // Stores list in orders of their own, the local file system in none.
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

async fn first_below(folder: &Place) -> Option<String> {
    let first = folder
        .store
        .list(Some(&folder.path))
        .try_next()
        .await
        .ok()??;
    Some(folder.inner(&first.location).join("/"))
}
