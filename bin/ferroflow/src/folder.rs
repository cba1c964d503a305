//! The data folder: where it is, who holds it, and the name of the replica that does.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use ferroflow_types::Secret;
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

/// The data folder of a process.
pub(crate) struct DataFolder {
    pub(crate) data_dir: PathBuf,
    /// What this process is called among others on one database.
    pub(crate) replica: String,
    _locks: Vec<File>,
}

impl DataFolder {
    /// Takes the folder for everything.
    pub(crate) fn lock_all(data_dir: &Path) -> anyhow::Result<Self> {
        let data_dir = absolute(data_dir)?;
        let locks = vec![lock(&data_dir, "ferroflow")?];
        Self::with_locks(data_dir, locks)
    }

    /// Takes a service's part of the folder; other services may be processes of their own over it.
    pub(crate) fn lock_service(data_dir: &Path, service: &str) -> anyhow::Result<Self> {
        let data_dir = absolute(data_dir)?;
        let locks = lock_for_service(&data_dir, service)?;
        Self::with_locks(data_dir, locks.into())
    }

    fn with_locks(data_dir: PathBuf, locks: Vec<File>) -> anyhow::Result<Self> {
        let replica = replica(&data_dir)?;
        Ok(Self {
            data_dir,
            replica,
            _locks: locks,
        })
    }

    /// What this process's instance of a service is called among others on one database.
    pub(crate) fn instance(&self, service: &str) -> String {
        format!("{}/{service}", self.replica)
    }

    /// The URL of a database: the one that was given, else that of a file.
    pub(crate) fn database(&self, given: Option<&Secret>, name: &str) -> String {
        database(&self.data_dir, given, name)
    }

    /// Where a service listens that is reached by this machine only.
    pub(crate) fn socket(&self, service: &str) -> PathBuf {
        socket(&self.data_dir, service)
    }
}

/// The URL of a database: the one that was given, else that of a file in the folder.
pub(crate) fn database(data_dir: &Path, given: Option<&Secret>, name: &str) -> String {
    match given {
        None => format!("sqlite:{}", data_dir.join(format!("{name}.db")).display()),
        Some(given) => given.expose().to_owned(),
    }
}

/// Where a service listens that is reached by this machine only.
pub(crate) fn socket(data_dir: &Path, service: &str) -> PathBuf {
    data_dir.join(format!("sockets/{service}.sock"))
}

/// Takes the data folder; two processes on one folder would run every step twice.
fn lock(data_dir: &Path, what: &str) -> anyhow::Result<File> {
    let mut file = lock_file(data_dir, "lock")?;
    if file.try_lock().is_err() {
        return Err(in_use(data_dir, &mut file));
    }
    write_holder(&mut file, what)?;
    Ok(file)
}

/// Takes a service's part of the data folder: the whole of it together with those who take other
/// parts, and the part alone. One who takes the whole alone, as former releases always do, and this
/// one keep each other out.
fn lock_for_service(data_dir: &Path, service: &str) -> anyhow::Result<[File; 2]> {
    let mut whole = lock_file(data_dir, "lock")?;
    if whole.try_lock_shared().is_err() {
        return Err(in_use(data_dir, &mut whole));
    }
    let mut part = lock_file(data_dir, &format!("lock.{service}"))?;
    if part.try_lock().is_err() {
        return Err(in_use(data_dir, &mut part));
    }
    let what = format!("ferroflow serve {service}");
    write_holder(&mut part, &what)?;
    // Of several services, the last one that started is named here.
    write_holder(&mut whole, &what)?;
    Ok([whole, part])
}

fn lock_file(data_dir: &Path, name: &str) -> anyhow::Result<File> {
    let path = data_dir.join(name);
    // Not truncated: until the lock is taken, the file names who holds it.
    let options = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path);
    options.with_context(|| format!("cannot open {}", path.display()))
}

fn in_use(data_dir: &Path, file: &mut File) -> anyhow::Error {
    let mut holder = String::new();
    let known = file.read_to_string(&mut holder).is_ok();
    let holder = if known { holder.trim() } else { "somebody" };
    anyhow!(
        "the data folder {} is in use by {holder}: stop it, or use another folder with --data-dir",
        data_dir.display()
    )
}

/// Says in the file who holds it.
fn write_holder(file: &mut File, what: &str) -> anyhow::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{what}, process {}", std::process::id())?;
    Ok(())
}

/// What the replica over this folder is called, the same each time it is started: under its name it
/// finds its runs again at once.
fn replica(data_dir: &Path) -> anyhow::Result<String> {
    // Services of their own hold the folder together, and may be started for the first time at once.
    let replica_lock = lock_file(data_dir, "lock.replica")?;
    replica_lock.lock().context("cannot lock lock.replica")?;
    let path = data_dir.join("replica");
    let recorded = match std::fs::read_to_string(&path) {
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
    let is_for_this_host = recorded
        .strip_prefix(&host)
        .is_some_and(|rest| rest.starts_with('-'));
    if is_for_this_host {
        return Ok(recorded);
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
        let held = lock(folder.path(), "ferroflow").unwrap();

        let message = lock(folder.path(), "ferroflow").unwrap_err().to_string();

        assert!(
            message.contains(&format!("process {}", std::process::id())),
            "{message}"
        );
        drop(held);
        lock(folder.path(), "ferroflow").unwrap();
    }

    #[test]
    fn services_share_a_folder_but_nobody_shares_a_service_or_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let a = lock_for_service(folder.path(), "a-svc").unwrap();
        let b = lock_for_service(folder.path(), "b-svc").unwrap();

        let message = lock_for_service(folder.path(), "a-svc")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("ferroflow serve a-svc, process"),
            "{message}"
        );
        let message = lock(folder.path(), "ferroflow").unwrap_err().to_string();
        assert!(
            message.contains("ferroflow serve b-svc, process"),
            "{message}"
        );

        drop((a, b));
        let whole = lock(folder.path(), "ferroflow").unwrap();
        let message = lock_for_service(folder.path(), "a-svc")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("in use by ferroflow, process"),
            "{message}"
        );
        drop(whole);
        lock_for_service(folder.path(), "a-svc").unwrap();
    }
}
