//! Files and folders to and from a store: streamed, in parts when large, checked by digest.

use std::io;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, WriteMultipart};
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stores::{self, Place, StoreError, Stores};
use crate::{digest, safe_fs};

/// Files up to this size go in one request; larger ones in parts of this size.
/// S3 takes no part below 5 MiB but the last one.
const PART_SIZE: usize = 8 * 1024 * 1024;

/// Parts of one file, and files of one folder, that are under way at once.
const CONCURRENCY: usize = 8;

/// What the name of a file ends with until all of it is there.
const PARTIAL_SUFFIX: &str = "part";

/// Why content did not get where it should.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A file here.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store.
    #[error("{path} in the store")]
    Store {
        /// What was asked for.
        path: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// There is no such store.
    #[error(transparent)]
    Place(#[from] StoreError),
    /// What arrived is not what was written.
    #[error("{path} has digest {found}, and {wanted} was written")]
    Digest {
        /// Where it was put.
        path: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
}

impl TransferError {
    /// Whether it is about a store that this installation does not read.
    pub fn is_unsupported_store(&self) -> bool {
        matches!(self, Self::Place(StoreError::Unknown(_)))
    }

    /// Whether the store cannot be reached now; see [`stores::is_away`].
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Store { source, .. } if stores::is_away(source))
    }
}

pub(crate) fn of_file(path: &Path) -> impl FnOnce(io::Error) -> TransferError {
    let path = path.to_path_buf();
    move |source| TransferError::File { path, source }
}

pub(crate) fn of_store(path: &StorePath) -> impl FnOnce(object_store::Error) -> TransferError {
    let path = path.to_string();
    move |source| TransferError::Store { path, source }
}

/// Copies a file, or every file of a folder, to a place; `false` when nothing is there.
pub async fn upload(from: &Path, to: &Place) -> Result<bool, TransferError> {
    let found = match fs::metadata(from).await {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(of_file(from)(error)),
    };
    if !found.is_dir() {
        upload_file(from, &*to.store, &to.path).await?;
        return Ok(true);
    }
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(from).follow_links(true) {
        let entry = entry.map_err(|error| of_file(from)(error.into()))?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    futures::stream::iter(files)
        .map(|file| async move {
            let inner = file.strip_prefix(from).unwrap_or(&file);
            upload_file(&file, &*to.store, &to.below(inner)?).await
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect::<()>()
        .await?;
    Ok(true)
}

async fn upload_file(
    from: &Path,
    store: &dyn ObjectStore,
    to: &StorePath,
) -> Result<(), TransferError> {
    let mut file = fs::File::open(from).await.map_err(of_file(from))?;
    // Grows up to `PART_SIZE` only for files that need it; several files are under way at once.
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut first = (&mut file).take(PART_SIZE as u64);
    first
        .read_to_end(&mut buffer)
        .await
        .map_err(of_file(from))?;
    if buffer.len() < PART_SIZE {
        let put = store.put(to, PutPayload::from(buffer)).await;
        return put.map(drop).map_err(of_store(to));
    }
    let upload = store.put_multipart(to).await.map_err(of_store(to))?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_SIZE);
    while !buffer.is_empty() {
        upload
            .wait_for_capacity(CONCURRENCY)
            .await
            .map_err(of_store(to))?;
        upload.write(&buffer);
        buffer.clear();
        let mut next = (&mut file).take(PART_SIZE as u64);
        next.read_to_end(&mut buffer).await.map_err(of_file(from))?;
    }
    upload.finish().await.map(drop).map_err(of_store(to))
}

/// Copies what a URI names to a path; see [`download`].
pub async fn fetch(
    stores: &Stores,
    uri: &str,
    to: &Path,
    digest: Option<&str>,
) -> Result<bool, TransferError> {
    download(&stores.open(uri)?, to, digest).await
}

/// Removes what was fetched to a path, and what a transfer that ended early left beside it.
pub fn discard(to: &Path) -> io::Result<()> {
    safe_fs::remove(to)?;
    safe_fs::remove(&safe_fs::with_suffix(to, PARTIAL_SUFFIX))
}

/// Copies what is at a place to a path: one object as a file, what is below it as a folder.
/// Checks it against `digest` if that is known; `false` when nothing is there.
pub async fn download(
    from: &Place,
    to: &Path,
    digest: Option<&str>,
) -> Result<bool, TransferError> {
    let is_file = download_file(&*from.store, &from.path, to).await?;
    if !is_file && !download_folder(from, to).await? {
        return Ok(false);
    }
    let Some(wanted) = digest else {
        return Ok(true);
    };
    let path = to.to_path_buf();
    // Files are read back from here: what counts is what a command will find.
    let content = tokio::task::spawn_blocking(move || digest::of_path(&path));
    let content = content
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(of_file(to))?;
    match content {
        Some(content) if content.digest != wanted => Err(TransferError::Digest {
            path: to.display().to_string(),
            wanted: wanted.to_owned(),
            found: content.digest,
        }),
        _ => Ok(true),
    }
}

async fn download_folder(from: &Place, to: &Path) -> Result<bool, TransferError> {
    let listed = from.store.list(Some(&from.path));
    let objects: Vec<_> = listed.try_collect().await.map_err(of_store(&from.path))?;
    if objects.is_empty() {
        return Ok(false);
    }
    futures::stream::iter(objects)
        .map(|object| async move {
            let inner = from.inner(&object.location);
            // Joining an empty path would add a slash to a file's name.
            let target = inner
                .iter()
                .fold(to.to_path_buf(), |path, part| path.join(part));
            download_file(&*from.store, &object.location, &target).await
        })
        .buffer_unordered(CONCURRENCY)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(true)
}

/// One object; it appears under its name when all of it is there.
async fn download_file(
    store: &dyn ObjectStore,
    from: &StorePath,
    to: &Path,
) -> Result<bool, TransferError> {
    let found = match store.get(from).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(of_store(from)(error)),
    };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).await.map_err(of_file(parent))?;
    }
    // A transfer that ends early must not leave a part of the file under its name.
    let part = safe_fs::with_suffix(to, PARTIAL_SUFFIX);
    let mut file = fs::File::create(&part).await.map_err(of_file(&part))?;
    let mut bytes = found.into_stream();
    while let Some(chunk) = bytes.try_next().await.map_err(of_store(from))? {
        file.write_all(&chunk).await.map_err(of_file(&part))?;
    }
    file.flush().await.map_err(of_file(&part))?;
    fs::rename(&part, to).await.map_err(of_file(to))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    fn place(path: &str) -> Place {
        Place {
            store: Arc::new(InMemory::new()),
            path: StorePath::from(path),
        }
    }

    #[tokio::test]
    async fn files_and_folders_come_back_as_they_went() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        std::fs::write(folder.join("inner/a b%.txt"), "a").unwrap();
        std::fs::write(folder.join("large"), vec![7; PART_SIZE + PART_SIZE / 2]).unwrap();
        for (from, name) in [(folder.clone(), "all"), (folder.join("large"), "one")] {
            let to = place("root/x");
            let digest = digest::of_path(&from).unwrap().unwrap().digest;
            let back = root.path().join(name);

            assert!(upload(&from, &to).await.unwrap());
            assert!(download(&to, &back, Some(&digest)).await.unwrap());

            let error = download(&to, &back, Some("sha256:other")).await;
            assert!(matches!(error, Err(TransferError::Digest { .. })));
        }
    }

    #[tokio::test]
    async fn nothing_stays_nothing() {
        let root = tempfile::tempdir().unwrap();
        let none = root.path().join("none");

        assert!(!upload(&none, &place("a")).await.unwrap());
        assert!(!download(&place("a"), &none, None).await.unwrap());
        assert!(!none.exists());
    }
}
