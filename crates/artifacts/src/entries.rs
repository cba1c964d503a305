//! What is in a folder, in one order for everybody: digests and stamps are made over it.
//!
//! Links are followed, as by commands that read the folder and by uploads of it. One that leads
//! nowhere, or in a circle, counts as what it says.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// Something in a folder.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A file, or a link to one.
    File(PathBuf, Metadata),
    /// A link that leads nowhere: its path and what it says.
    Link(PathBuf, PathBuf),
}

/// Files and dead links below `root` in the order of their names, folder by folder. A file is itself.
pub(crate) fn walk(root: &Path) -> impl Iterator<Item = io::Result<Entry>> {
    let entries = WalkDir::new(root).follow_links(true).sort_by_file_name();
    entries.into_iter().filter_map(|entry| match entry {
        Ok(entry) if entry.file_type().is_file() => {
            let found = entry.metadata().map_err(io::Error::from);
            Some(found.map(|found| Entry::File(entry.into_path(), found)))
        }
        Ok(_) => None,
        Err(error) => {
            let path = error.path().map(Path::to_path_buf);
            let dead_link = path.and_then(|path| Some((path.read_link().ok()?, path)));
            Some(match dead_link {
                Some((target, path)) => Ok(Entry::Link(path, target)),
                None => Err(error.into()),
            })
        }
    })
}

/// The path of an entry in the folder, as text; empty for the root itself.
pub(crate) fn inner(path: &Path, root: &Path) -> String {
    let inner = path.strip_prefix(root).unwrap_or(path);
    inner.display().to_string()
}
