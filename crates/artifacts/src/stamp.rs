//! Stamps: what is seen of content without reading it. Content whose stamp is the one that was noted
//! with its digest has not changed; with another stamp it is read again.
//!
//! Of files of this machine it is path, size, the times of the last change of content and of the inode
//! (the latter cannot be set back), and the inode; of objects of a store path, size and ETag, or the time
//! where a store gives none.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use futures::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};

use crate::entries::{self, Entry};
use crate::stores::Place;
use crate::transfer::{TransferError, of_store};

/// The stamp of what is at a path of this machine; `None` when nothing is there.
pub fn of_path(path: &Path) -> io::Result<Option<String>> {
    // Walking a path that is not there is an error like any other, so it is asked for first.
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let mut lines = Vec::new();
    for entry in entries::walk(path) {
        lines.push(match entry? {
            Entry::File(file, found) => format!(
                "{} {} {}.{} {}.{} {}\n",
                entries::inner(&file, path),
                found.len(),
                found.mtime(),
                found.mtime_nsec(),
                found.ctime(),
                found.ctime_nsec(),
                found.ino(),
            ),
            Entry::Link(link, target) => {
                format!("{} -> {}\n", entries::inner(&link, path), target.display())
            }
        });
    }
    Ok(Some(hash_lines("file", &lines)))
}

/// The stamp of what is at a place of a store; `None` when nothing is there.
///
/// # Errors
/// When the store fails or is away.
pub async fn of_place(place: &Place) -> Result<Option<String>, TransferError> {
    let found = objects(place).await?;
    let lines: Vec<_> = found.iter().map(|found| line(found, place)).collect();
    Ok((!lines.is_empty()).then(|| hash_lines("object", &lines)))
}

/// The object at a place, or those below it in the order of files in folders.
pub(crate) async fn objects(place: &Place) -> Result<Vec<ObjectMeta>, TransferError> {
    match place.store.head(&place.path).await {
        Ok(found) => return Ok(vec![found]),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(of_store(&place.path)(error)),
    }
    let listed = place.store.list(Some(&place.path));
    let mut found: Vec<_> = listed.try_collect().await.map_err(of_store(&place.path))?;
    // Part by part: "a/b" comes before "a.txt", as in folders.
    found.sort_by_cached_key(|object| place.inner(&object.location));
    Ok(found)
}

fn line(object: &ObjectMeta, place: &Place) -> String {
    let state = match &object.e_tag {
        Some(tag) => tag.clone(),
        None => object.last_modified.to_rfc3339(),
    };
    let inner = place.inner(&object.location).join("/");
    format!("{inner} {} {state}\n", object.size)
}

fn hash_lines(kind: &str, lines: &[String]) -> String {
    let mut hasher = Sha256::new();
    for line in lines {
        hasher.update(line);
    }
    format!("{kind}:{}", hex::encode(&hasher.finalize()[..16]))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn a_change_shows_even_when_size_and_time_are_set_back() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "one").unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let set_back = || {
            let opened = fs::File::options().write(true).open(&file).unwrap();
            opened.set_modified(long_ago).unwrap();
        };
        set_back();
        let before = of_path(root.path()).unwrap().unwrap();
        assert_eq!(of_path(root.path()).unwrap().unwrap(), before);
        // Times of inodes are as coarse as the kernel's clock ticks.
        std::thread::sleep(Duration::from_millis(20));

        fs::write(&file, "two").unwrap();
        set_back();

        assert_ne!(of_path(root.path()).unwrap().unwrap(), before);
        assert_eq!(of_path(&root.path().join("none")).unwrap(), None);
    }

    #[tokio::test]
    async fn objects_are_told_apart_by_their_etag_or_time() {
        let place = Place {
            store: Arc::new(InMemory::new()),
            path: "root".into(),
        };
        assert_eq!(of_place(&place).await.unwrap(), None);
        let put = |path: &'static str, text: &'static str| {
            let store = Arc::clone(&place.store);
            async move {
                store
                    .put(&path.into(), PutPayload::from(text))
                    .await
                    .unwrap()
            }
        };
        put("root/a.txt", "1").await;
        put("root/a/b", "1").await;

        let before = of_place(&place).await.unwrap().unwrap();
        assert_eq!(of_place(&place).await.unwrap().unwrap(), before);
        let order: Vec<_> = objects(&place).await.unwrap();
        assert_eq!(place.inner(&order[0].location), ["a", "b"]);
        put("root/a/b", "2").await;
        assert_ne!(of_place(&place).await.unwrap().unwrap(), before);
    }
}
