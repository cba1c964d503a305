//! Content into and out of folders that others write to as well: no link is followed there, and
//! content appears as a whole.
//!
//! Commands in containers write to the workspace of their run and may put links in the way; a server
//! that followed them would read and write what is only its own.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
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
const LOOK: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Moves `staged` to `root/inner`, in the place of what is there; folders between are made. Both are
/// on one file system.
///
/// # Errors
/// When something between `root` and there is not a folder, links included.
pub fn place(staged: &Path, root: &Path, inner: &Path) -> io::Result<()> {
    let folder = LOOK.union(OFlags::DIRECTORY);
    // How the root itself is reached is its owner's matter.
    let mut parent = openat(
        CWD,
        root,
        folder.difference(OFlags::NOFOLLOW),
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
        match mkdirat(&parent, part, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        parent = openat(&parent, part, folder, Mode::empty())?;
    }
    match renameat(CWD, staged, &parent, name) {
        Ok(()) => return Ok(()),
        // A folder with something in it, or one in the place of a file.
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR | Errno::NOTDIR) => {}
        Err(error) => return Err(error.into()),
    }
    match renameat_with(CWD, staged, &parent, name, RenameFlags::EXCHANGE) {
        Ok(()) => remove(staged),
        // Network file systems cannot do both at once.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let old = beside(staged, "old");
            renameat(&parent, name, CWD, &old)?;
            renameat(CWD, staged, &parent, name)?;
            remove(&old)
        }
        Err(error) => Err(error.into()),
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

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Copies a file or a folder as it is: links stay links. `from` has none in its own path.
/// Ends early when `goes_on` says no.
///
/// # Errors
/// When there is something that is neither file, folder nor link; when it is ended early.
pub fn copy_as_it_is(from: &Path, to: &Path, goes_on: &dyn Fn() -> bool) -> io::Result<()> {
    let mut source = openat(CWD, "/", LOOK, Mode::empty())?;
    for part in from.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(part) => source = openat(&source, part, LOOK, Mode::empty())?,
            _ => return Err(io::ErrorKind::InvalidFilename.into()),
        }
    }
    copy(source, to, goes_on)
}

fn copy(source: OwnedFd, to: &Path, goes_on: &dyn Fn() -> bool) -> io::Result<()> {
    if !goes_on() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let found = fstat(&source)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => copy_folder(&source, to, goes_on),
        FileType::RegularFile => {
            let mut target = File::create(to)?;
            io::copy(&mut File::from(source), &mut target)?;
            target.set_permissions(Permissions::from_mode(found.st_mode & 0o777))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}: neither a file nor a folder", to.display()),
        )),
    }
}

fn copy_folder(source: &OwnedFd, to: &Path, goes_on: &dyn Fn() -> bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let target = to.join(OsStr::from_bytes(name.to_bytes()));
        let found = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            let leads_to = readlinkat(source, name, Vec::new())?;
            symlink(OsStr::from_bytes(leads_to.to_bytes()), &target)?;
        } else {
            let inner = openat(source, name, LOOK, Mode::empty())?;
            copy(inner, &target, goes_on)?;
        }
    }
    Ok(())
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
            place(&staged, &root, inner).unwrap();
            assert_eq!(read(&root.join("a/b/file")), text);
            assert!(!staged.exists());
        }
        fs::write(&staged, "third").unwrap();
        place(&staged, &root, inner).unwrap();
        assert_eq!(read(&root.join("a/b")), "third");
        folder(&staged, "fourth");
        place(&staged, &root, inner).unwrap();
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
            let refused = place(&at("staged"), &at("root"), Path::new(inner));
            assert!(refused.is_err(), "{inner}");
        }
        assert_eq!(fs::read_dir(at("secret")).unwrap().count(), 0);
        // In its own place a link is replaced.
        place(&at("staged"), &at("root"), Path::new("a/b")).unwrap();
        assert_eq!(read(&at("root/a/b")), "mine");
        assert_eq!(fs::read_dir(at("secret")).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_has_links_and_not_what_they_lead_to() {
        let temp = tempfile::tempdir().unwrap();
        let temp = temp.path().canonicalize().unwrap();
        let at = |name: &str| temp.join(name);
        fs::write(at("secret"), "secret").unwrap();
        folder(&at("from/inner"), "text");
        symlink(at("secret"), at("from/link")).unwrap();
        symlink(at("from"), at("way")).unwrap();

        copy_as_it_is(&at("from"), &at("to"), &|| true).unwrap();

        assert_eq!(read(&at("to/inner/file")), "text");
        assert_eq!(fs::read_link(at("to/link")).unwrap(), at("secret"));
        assert!(copy_as_it_is(&at("way"), &at("other"), &|| true).is_err());
        assert!(copy_as_it_is(&at("from"), &at("other"), &|| false).is_err());
    }
}
