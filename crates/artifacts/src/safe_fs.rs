//! Content into and out of folders that others write to as well: no link is followed there, and
//! content appears as a whole.
//!
//! Commands in containers write to the workspace of their run and may put links in the way; a server
//! that followed them would read and write what is only its own.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, fstat, mkdirat, openat, readlinkat,
    renameat, renameat_with, statat,
};
use rustix::io::Errno;

/// Opens what is there, whatever it is, without waiting and without following a link.
/// `NONBLOCK`, because opening a pipe would wait for a writer.
const OPEN_ANY: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Opens a folder on the way, without following a link.
#[cfg(target_os = "linux")]
const OPEN_FOLDER: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Opens a folder on the way, without following a link.
#[cfg(not(target_os = "linux"))]
const OPEN_FOLDER: OFlags = OPEN_ANY.union(OFlags::DIRECTORY);

/// How often content is moved to its place while others move content there as well.
const MOVE_TRIES: u32 = 10;

/// Bytes that are copied between two calls of `keep_going`.
const CHUNK: u64 = 64 * 1024 * 1024;

/// Moves `staged` to `root/inner`, in the place of what is there; folders between are made. Both are
/// on one file system.
///
/// # Errors
/// When something between `root` and there is not a folder, links included.
pub fn move_into(staged: &Path, root: &Path, inner: &Path) -> io::Result<()> {
    // The root itself may be a link: its path comes from the server and not from a command.
    let mut parent = openat(
        CWD,
        root,
        OPEN_FOLDER.difference(OFlags::NOFOLLOW),
        Mode::empty(),
    )?;
    let mut parts: Vec<_> = inner.components().collect();
    let Some(Component::Normal(name)) = parts.pop() else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    for part in parts {
        let Component::Normal(part) = part else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        // Each part is opened from the one before, so a link that is put in the way later is not
        // followed.
        match mkdirat(&parent, part, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        parent = openat(&parent, part, OPEN_FOLDER, Mode::empty())?;
    }
    let mut tries = 0;
    loop {
        match replace(staged, &parent, name) {
            // Somebody else put something there meanwhile, or took it away.
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR | Errno::NOTDIR)
                if tries < MOVE_TRIES =>
            {
                tries += 1;
            }
            replaced => return Ok(replaced?),
        }
    }
}

/// Moves `staged` to its name; what was there is removed as far as it can be.
fn replace(staged: &Path, parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match renameat(CWD, staged, parent, name) {
        // A folder with something in it, or one in the place of a file.
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR | Errno::NOTDIR) => {}
        moved => return moved,
    }
    // Exchanged, so that readers find one content or the other at every moment.
    match renameat_with(CWD, staged, parent, name, RenameFlags::EXCHANGE) {
        Ok(()) => {
            // The new content is in its place; what cannot be removed of the old one does no harm
            // there.
            let _left = remove(staged).is_err();
            Ok(())
        }
        // Network file systems cannot do both at once.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            // For a moment nothing is there.
            let old = with_suffix(staged, "old");
            renameat(parent, name, CWD, &old)?;
            let moved = renameat(CWD, staged, parent, name);
            let _left = remove(&old).is_err();
            moved
        }
        Err(error) => Err(error),
    }
}

/// Removes a file or a folder; nothing is there afterwards.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `<path>.<suffix>`
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Copies a file or a folder as it is, to where nothing is: links stay links. `from` is absolute and
/// has none in its own path. Ends early when `keep_going` says no.
///
/// # Errors
/// When there is something that is neither file nor folder nor a link to what is copied as well; when
/// it is ended early.
pub fn copy_keeping_links(from: &Path, to: &Path, keep_going: &dyn Fn() -> bool) -> io::Result<()> {
    let mut source = openat(CWD, "/", OPEN_FOLDER, Mode::empty())?;
    let mut parts = from.components().peekable();
    while let Some(part) = parts.next() {
        // From `/` on, part by part: `NOFOLLOW` holds for the last part of a path only.
        let flags = if parts.peek().is_some() {
            OPEN_FOLDER
        } else {
            OPEN_ANY
        };
        match part {
            Component::RootDir => {}
            Component::Normal(part) => source = openat(&source, part, flags, Mode::empty())?,
            _ => return Err(io::ErrorKind::InvalidFilename.into()),
        }
    }
    copy(source, to, Path::new(""), keep_going)
}

fn invalid_input(inner: &Path, why: &str) -> io::Error {
    let message = format!("{} {why}", inner.display());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// `inner` is where it is in what is copied.
fn copy(source: OwnedFd, to: &Path, inner: &Path, keep_going: &dyn Fn() -> bool) -> io::Result<()> {
    let found = fstat(&source)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => copy_folder(&source, to, inner, keep_going),
        FileType::RegularFile => {
            // Only a new file: a folder that changes while it is read may list a name twice, and a link
            // that was made for the first one is not followed.
            let mut target = File::create_new(to)?;
            let source = File::from(source);
            while io::copy(&mut (&source).take(CHUNK), &mut target)? > 0 {
                if !keep_going() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
            // Without the bits for set-user-ID, set-group-ID and sticky.
            target.set_permissions(Permissions::from_mode(found.st_mode & 0o777))
        }
        _ => Err(invalid_input(inner, "is neither a file nor a folder")),
    }
}

fn copy_folder(
    source: &OwnedFd,
    to: &Path,
    inner: &Path,
    keep_going: &dyn Fn() -> bool,
) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        if !keep_going() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let part = OsStr::from_bytes(name.to_bytes());
        let (target, inner) = (to.join(part), inner.join(part));
        let found = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            let link_target = readlinkat(source, name, Vec::new())?;
            let link_target = Path::new(OsStr::from_bytes(link_target.to_bytes()));
            if escapes(&inner, link_target) {
                let why = "is a link to what is not copied with it: copy the content instead";
                return Err(invalid_input(&inner, why));
            }
            symlink(link_target, &target)?;
        } else {
            let source = openat(source, name, OPEN_ANY, Mode::empty())?;
            copy(source, &target, &inner, keep_going)?;
        }
    }
    Ok(())
}

/// Whether a link at `inner` says that it leads out of what is copied.
fn escapes(inner: &Path, link_target: &Path) -> bool {
    let mut depth = inner.components().count().saturating_sub(1);
    for part in link_target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with `file`, which holds `text`.
    fn folder(at: &Path, text: &str) {
        fs::create_dir_all(at).unwrap();
        fs::write(at.join("file"), text).unwrap();
    }

    fn read(at: &Path) -> String {
        fs::read_to_string(at).unwrap()
    }

    #[test]
    fn content_takes_the_place_of_what_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let (root, staged) = (temp.path().join("root"), temp.path().join("staged"));
        fs::create_dir(&root).unwrap();
        let inner = Path::new("a/b");
        for text in ["first", "second"] {
            folder(&staged, text);
            move_into(&staged, &root, inner).unwrap();
            assert_eq!(read(&root.join("a/b/file")), text);
            assert!(!staged.exists());
        }
        fs::write(&staged, "third").unwrap();
        move_into(&staged, &root, inner).unwrap();
        assert_eq!(read(&root.join("a/b")), "third");
        folder(&staged, "fourth");
        move_into(&staged, &root, inner).unwrap();
        assert_eq!(read(&root.join("a/b/file")), "fourth");
    }

    #[test]
    fn links_in_the_way_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for name in ["root/a", "secret"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink(at("secret"), at("root/a/b")).unwrap();
        fs::write(at("staged"), "mine").unwrap();

        for inner in ["a/b/file", "../secret/file", "a/../../secret/file"] {
            let refused = move_into(&at("staged"), &at("root"), Path::new(inner));
            assert!(refused.is_err(), "{inner}");
        }
        assert_eq!(fs::read_dir(at("secret")).unwrap().count(), 0);
        // In its own place a link is replaced.
        move_into(&at("staged"), &at("root"), Path::new("a/b")).unwrap();
        assert_eq!(read(&at("root/a/b")), "mine");
        assert_eq!(fs::read_dir(at("secret")).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_has_links_and_not_what_they_lead_to() {
        let temp = tempfile::tempdir().unwrap();
        let temp = temp.path().canonicalize().unwrap();
        let at = |name: &str| temp.join(name);
        folder(&at("from/inner"), "text");
        symlink("inner/file", at("from/link")).unwrap();
        symlink("../link", at("from/inner/back")).unwrap();
        symlink(at("from"), at("way")).unwrap();
        let copy = |from: &str, to: &str| copy_keeping_links(&at(from), &at(to), &|| true);

        copy("from", "to").unwrap();
        copy("from/inner/file", "one").unwrap();

        assert_eq!(read(&at("to/inner/file")), "text");
        assert_eq!(read(&at("one")), "text");
        assert_eq!(
            fs::read_link(at("to/link")).unwrap(),
            Path::new("inner/file")
        );
        assert!(copy("way", "other").is_err());
        assert!(copy_keeping_links(&at("from"), &at("other"), &|| false).is_err());
        for (number, out) in ["/etc/passwd", "../../from/link"].iter().enumerate() {
            let link = at("from/inner/out");
            symlink(out, &link).unwrap();
            let error = copy("from", &format!("other-{number}")).unwrap_err();
            assert!(error.to_string().contains("inner/out is a link"), "{error}");
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn concurrent_moves_to_one_path_all_succeed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        fs::create_dir(&root).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let (staged, root) = (temp.path().join(writer.to_string()), &root);
                scope.spawn(move || {
                    for _ in 0..50 {
                        folder(&staged, "same");
                        move_into(&staged, root, Path::new("a/b")).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&root.join("a/b/file")), "same");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
