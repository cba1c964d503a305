//! Content of files and folders: digest, size, copies. Synchronous; the launcher uses it.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};
use walkdir::WalkDir;

use crate::entries::{self, Entry};

/// What is known of some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// `sha256:` and the hex digest: of the file's bytes, or for a folder of the sorted lines
    /// `<digest of file>  <relative path>\n`. Links are what they lead to.
    pub digest: String,
    /// The size of all files in bytes.
    pub size_bytes: u64,
}

/// The path of a URI of this machine; `None` for URIs of other stores.
pub fn local_path(uri: &str) -> Option<PathBuf> {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// `inner` below `root`; `None` when it would lead out of there.
pub fn join_inside(root: &Path, inner: &str) -> Option<PathBuf> {
    let inner = Path::new(inner);
    let inside = inner
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| root.join(inner))
}

/// The content at `path`, `None` when nothing is there.
pub fn of_path(path: &Path) -> io::Result<Option<Content>> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => of_folder(path).map(Some),
        Ok(found) if found.is_file() => of_file(path).map(Some),
        Ok(_) => Err(no_content(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A pipe or a device may be read for ever.
fn no_content(path: &Path) -> io::Error {
    let message = format!("{} is neither a file nor a folder", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn of_file(path: &Path) -> io::Result<Content> {
    let mut hasher = Sha256::new();
    let size_bytes = io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(Content {
        digest: hex_digest(hasher),
        size_bytes,
    })
}

fn of_folder(root: &Path) -> io::Result<Content> {
    let mut hasher = Sha256::new();
    let mut size_bytes = 0;
    for entry in entries::walk(root) {
        let (digest, path) = match entry? {
            Entry::File(file, _) => {
                let content = of_file(&file)?;
                size_bytes += content.size_bytes;
                (content.digest, file)
            }
            // A link that leads nowhere has no content but still tells one folder from another.
            Entry::Link(link, target) => (format!("link:{}", target.display()), link),
        };
        hasher.update(folder_line(&digest, &entries::inner(&path, root)));
    }
    Ok(Content {
        digest: hex_digest(hasher),
        size_bytes,
    })
}

/// What a file counts for in its folder.
pub(crate) fn folder_line(digest: &str, inner: &str) -> String {
    format!("{digest}  {inner}\n")
}

pub(crate) fn hex_digest(hasher: Sha256) -> String {
    format!("sha256:{}", hex::encode(hasher.finalize()))
}

/// Copies a file or a folder to `to`, whose parents are made. Links are followed. What is neither in a
/// folder has no content and is left out, as in digests.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in WalkDir::new(from).follow_links(true) {
        let entry = entry?;
        let relative = entry.path().strip_prefix(from).unwrap_or(Path::new(""));
        // Joining an empty path would add a slash to a file's name.
        let target = if relative.as_os_str().is_empty() {
            to.to_path_buf()
        } else {
            to.join(relative)
        };
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target)?;
        } else if !entry.file_type().is_file() {
            // Opening a pipe would wait for a writer, and a device may have no end.
            if entry.depth() == 0 {
                return Err(no_content(from));
            }
        } else {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_and_file_uris_are_local() {
        assert_eq!(local_path("/a/b"), Some(PathBuf::from("/a/b")));
        assert_eq!(local_path("file:///a/b"), Some(PathBuf::from("/a/b")));
        assert_eq!(local_path("gs://bucket/a"), None);
        assert_eq!(local_path("a/b"), None);
    }

    #[test]
    fn nothing_leads_out_of_a_folder() {
        let root = Path::new("/data");

        assert_eq!(join_inside(root, "a/b"), Some(PathBuf::from("/data/a/b")));
        for bad in ["../x", "/etc/passwd", "a/../../x", "./../x"] {
            assert_eq!(join_inside(root, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        let pipe = folder.join("pipe");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "1").unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let to = root.path().join("to");

        assert!(of_path(&pipe).is_err());
        assert!(copy(&pipe, &to).is_err());
        copy(&folder, &to).unwrap();

        assert_eq!(of_path(&to).unwrap(), of_path(&folder).unwrap());
        assert!(!to.join("pipe").exists());
    }

    #[test]
    fn a_link_is_what_it_leads_to() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("folder")).unwrap();
        fs::write(at("data"), "1").unwrap();
        std::os::unix::fs::symlink("../data", at("folder/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("folder/dead")).unwrap();
        std::os::unix::fs::symlink(".", at("folder/circle")).unwrap();
        let digest = || of_path(&at("folder")).unwrap().unwrap().digest;
        let before = digest();
        assert_eq!(digest(), before);

        fs::write(at("data"), "2").unwrap();

        assert_ne!(digest(), before);
    }

    #[test]
    fn a_folder_and_its_copy_have_one_digest_and_a_changed_one_another() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("inner")).unwrap();
        fs::write(from.join("inner/a.txt"), "a").unwrap();
        fs::write(from.join("b.txt"), "bb").unwrap();

        copy(&from, &to).unwrap();

        let original = of_path(&from).unwrap().unwrap();
        assert_eq!(original.size_bytes, 3);
        assert_eq!(of_path(&to).unwrap().unwrap(), original);
        fs::write(to.join("b.txt"), "bc").unwrap();
        assert_ne!(of_path(&to).unwrap().unwrap(), original);
        assert_eq!(of_path(&root.path().join("none")).unwrap(), None);
    }
}
