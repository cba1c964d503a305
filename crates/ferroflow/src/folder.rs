//! The data folder: where it is, who holds it, and the name of the replica that does.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use uuid::Uuid;

/// The folder with `~` resolved; it is made if it is not there.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let path = match path.strip_prefix("~") {
        Ok(rest) => {
            let home = std::env::home_dir().context("there is no home folder, use --data-dir")?;
            home.join(rest)
        }
        Err(_) => path.to_path_buf(),
    };
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("cannot use {}", path.display()))
}

/// Takes the data folder; two processes on one folder would run every step twice.
pub(crate) fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        let known = file.read_to_string(&mut holder).is_ok();
        let holder = if known { holder.trim() } else { "somebody" };
        bail!(
            "the data folder {} is in use by {holder}: stop it, or use another folder with \
             --data-dir",
            data_dir.display()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "ferroflow, process {}", std::process::id())?;
    Ok(file)
}

/// What the replica over this folder is called, the same each time it is started: under its name it
/// finds its runs again at once. The folder must be locked.
pub(crate) fn replica(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("replica");
    let known = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    // A copied folder would be the same replica twice; on another machine it is another one.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .trim()
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.'))
        .collect();
    let host = if host.is_empty() {
        "replica".to_owned()
    } else {
        host
    };
    let ours = known
        .strip_prefix(&host)
        .is_some_and(|rest| rest.starts_with('-'));
    if ours {
        return Ok(known);
    }
    let text = Uuid::new_v4().simple().to_string();
    let name = format!("{host}-{}", &text[..12]);
    std::fs::write(&path, format!("{name}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_replica_the_same_name_each_time_and_no_other_has_it() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());

        let name = replica(one.path()).unwrap();

        assert_eq!(replica(one.path()).unwrap(), name);
        assert_ne!(replica(other.path()).unwrap(), name);
        std::fs::write(one.path().join("replica"), "another-machine-0123\n").unwrap();
        assert_ne!(replica(one.path()).unwrap(), "another-machine-0123");
    }

    #[test]
    fn a_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();

        let told = lock(folder.path()).unwrap_err().to_string();

        assert!(
            told.contains(&format!("process {}", std::process::id())),
            "{told}"
        );
        drop(held);
        lock(folder.path()).unwrap();
    }
}
