//! Reading an artifact's content as a stream.

use std::path::PathBuf;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use crate::digest;

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
pub struct Reading {
    /// The size in bytes.
    pub size_bytes: u64,
    /// The file's name.
    pub name: String,
    /// The bytes.
    pub bytes: BoxStream<'static, Result<Bytes, object_store::Error>>,
}

/// Opens the content of `uri`, or of the file `inner` in the folder that it is.
pub async fn open(uri: &str, inner: &str) -> Result<Reading, ReadError> {
    let root = digest::local(uri).ok_or_else(|| ReadError::Store(uri.to_owned()))?;
    let path = match inner {
        "" => root,
        inner => digest::below(&root, inner).ok_or_else(|| ReadError::Outside(inner.to_owned()))?,
    };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| ReadError::Failed {
        uri: uri.to_owned(),
        source,
    };
    match tokio::fs::metadata(&path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ReadError::Missing(path.display().to_string()));
        }
        Err(error) => return Err(failed(error.into())),
        Ok(found) if found.is_dir() => {
            let example = first_file(path.clone()).await.unwrap_or_default();
            return Err(ReadError::Folder {
                uri: uri.to_owned(),
                example,
            });
        }
        Ok(_) => {}
    }
    let store = LocalFileSystem::new();
    let place = StorePath::from_absolute_path(&path).map_err(|error| failed(error.into()))?;
    let found = store
        .get(&place)
        .await
        .map_err(|error| failed(error.into()))?;
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    Ok(Reading {
        size_bytes: found.meta.size,
        name: name.unwrap_or_default(),
        bytes: found.into_stream().boxed(),
    })
}

async fn first_file(folder: PathBuf) -> Option<String> {
    let store = LocalFileSystem::new_with_prefix(&folder).ok()?;
    let first = store.list(None).try_next().await.ok()??;
    Some(first.location.to_string())
}
