//! Which files of this machine a container may see as inputs.
//!
//! An importer may name any path. With processes that is no more than a command could read anyway; a
//! container must not get the server's own data by it, nor sockets and devices.

use std::fs::FileType;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// Folders of the system that are more than files.
const SYSTEM: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/var/run"];

/// Why a path may not be an input, if so. `data` is the server's folder, `allowed` are those that the
/// container sees anyway; the path is there.
pub(super) fn refusal_reason(path: &Path, data: &Path, allowed: &[&Path]) -> Option<String> {
    let shown = path.display();
    // What counts is where links lead: one in an allowed folder may point anywhere.
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) => return Some(format!("{shown} cannot be an input: {error}")),
    };
    let real_of = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    // First, as artifacts and workspaces are usually below the data folder, which is refused next.
    if allowed
        .iter()
        .any(|folder| real.starts_with(real_of(folder)))
    {
        return None;
    }
    // A folder above a closed one would show it as well.
    let is_over = |below: &Path| below.starts_with(&real) || real.starts_with(below);
    let system = SYSTEM.iter().map(|folder| real_of(Path::new(folder)));
    let closed = system.chain([real_of(data)]).find(|below| is_over(below));
    if let Some(closed) = closed {
        let closed = closed.display();
        return Some(format!(
            "{shown} cannot be an input of a container, it is or holds {closed}: copy what is \
             needed to another folder"
        ));
    }
    let kind = std::fs::metadata(&real).map(|found| found.file_type());
    let is_special = |kind: FileType| {
        kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device()
    };
    kind.is_ok_and(is_special)
        .then(|| format!("{shown} cannot be an input: it is neither a file nor a folder"))
}

/// Whether what is at `path`, with all that is in it, is in `folder`; whoever reads it follows links.
pub(super) fn check_stays_inside(path: &Path, folder: &Path) -> Result<(), String> {
    let of_io = |error: std::io::Error| format!("cannot look at {}: {error}", path.display());
    let real = path.canonicalize().map_err(of_io)?;
    if !real.starts_with(folder.canonicalize().map_err(of_io)?) {
        return Err("it is a link to what is not an output: copy the content instead".to_owned());
    }
    if !real.is_dir() {
        return Ok(());
    }
    match escaping_link(&real).map_err(of_io)? {
        None => Ok(()),
        Some(link) => Err(format!(
            "{} is a link to what is not in it: copy the content instead",
            link.strip_prefix(&real).unwrap_or(&link).display()
        )),
    }
}

/// A link in `folder` that leads out of it, if there is one: whoever follows it sees more than the
/// command that made it.
fn escaping_link(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let real = folder.canonicalize()?;
    let mut folders = vec![real.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_symlink() {
                // A link that cannot be resolved here leads to what only the container could see.
                let inside = entry.path().canonicalize();
                if !inside.is_ok_and(|target| target.starts_with(&real)) {
                    return Ok(Some(entry.path()));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn inputs_are_files_that_are_not_the_servers() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["data/artifacts", "data/attempts", "elsewhere"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("elsewhere/data.csv"), "1").unwrap();
        let _socket = UnixListener::bind(at("elsewhere/socket")).unwrap();
        symlink(at("data"), at("elsewhere/link")).unwrap();
        let (data, artifacts) = (at("data"), at("data/artifacts"));
        let refusal = |path: &Path| refusal_reason(path, &data, &[&artifacts]);

        assert_eq!(refusal(&at("elsewhere/data.csv")), None);
        assert_eq!(refusal(&at("elsewhere")), None);
        assert_eq!(refusal(&at("data/artifacts")), None);
        for path in [
            at("data/attempts"),
            folder.path().to_owned(),
            at("elsewhere/link"),
            at("elsewhere/socket"),
            PathBuf::from("/"),
            "/proc/self".into(),
            "/var/run".into(),
        ] {
            assert!(refusal(&path).is_some(), "{}", path.display());
        }
    }

    #[test]
    fn links_may_stay_in_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("a")).unwrap();
        std::fs::write(at("a/file"), "1").unwrap();
        symlink("file", at("a/same")).unwrap();
        assert_eq!(escaping_link(folder.path()).unwrap(), None);
        symlink("/etc/passwd", at("a/out")).unwrap();
        let found = escaping_link(folder.path()).unwrap().unwrap();
        assert!(found.ends_with("a/out"), "{}", found.display());
    }
}
