//! What the former version left, as text: databases as SQL that SQLite and PostgreSQL take, files,
//! and what launchers that were at work reported later.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::FormerState;
use super::scene::{self, SERVED, Scene};

/// Stands for the data folder.
const DATA: &str = "@DATA@";

/// Stands for the name of the replica, which is that of a machine.
const REPLICA: &str = "former-1";

/// Stands for where programs are.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

const DUMP: &str = include_str!("dump.py");

const LOAD: &str = "
import sqlite3, sys
sqlite3.connect(sys.argv[1]).executescript(sys.stdin.read())
";

/// Runs under a launcher's lock until its command may end, then reports; ends with its folder.
const LAUNCHER: &str = "
while [ -e spec.json ] && [ ! -e \"$0\" ]; do sleep 0.05; done
mv outcome.later outcome.json
";

const PIPELINES: &str = "pipelines.db";

/// What the former version has on PostgreSQL only: the lease of the replica that drove the runs. It
/// ran out a minute after the epoch.
const LEASE: &str = "INSERT INTO leases (name, holder, fence, expires_at) VALUES \
    ('replica/former-1', 'former-1', 1, 60000);\n";

#[derive(Serialize, Deserialize)]
pub(crate) struct Recording {
    pub(crate) left: FormerState,
    pipelines: String,
    events: String,
    files: BTreeMap<String, String>,
    /// By the attempt's folder.
    later: BTreeMap<String, String>,
}

/// Launchers at work; ended with the test.
pub(crate) struct Launchers(Vec<Child>);

impl Recording {
    fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/upgrade/former.json")
    }

    /// What was recorded, for the data folder of `scene`.
    pub(crate) fn read(scene: &Scene) -> Self {
        let text = std::fs::read_to_string(Self::path()).unwrap();
        let text = text.replace(DATA, &scene.data().display().to_string());
        serde_json::from_str(&text).unwrap()
    }

    /// Keeps it without what only this machine has.
    pub(crate) fn write(&self, scene: &Scene) {
        let text = serde_json::to_string_pretty(self).unwrap() + "\n";
        let replica = std::fs::read_to_string(scene.data().join("replica")).unwrap();
        let text = text
            .replace(&scene.data().display().to_string(), DATA)
            .replace(replica.trim(), REPLICA)
            .replace(&std::env::var("PATH").unwrap(), PATH);
        std::fs::write(Self::path(), text).unwrap();
    }

    /// Of a folder whose server was killed; what its launchers report is waited for.
    pub(crate) fn of(scene: &Scene, left: FormerState) -> Self {
        let data = scene.data();
        let dump = |name: &str| {
            let mut python = Command::new("python3");
            let dumped = python.args(["-c", DUMP]).arg(data.join(name)).output();
            let dumped = dumped.unwrap();
            assert!(dumped.status.success());
            String::from_utf8(dumped.stdout).unwrap()
        };
        let (pipelines, events) = (dump(PIPELINES), dump("events.db"));
        let files = files(data);
        let unfinished = scene.unfinished_attempts();
        scene.open_gate(SERVED);
        scene::wait_for_reports(&unfinished);
        let later = unfinished.iter().map(|folder| {
            let report = std::fs::read_to_string(folder.join("outcome.json")).unwrap();
            let name = folder.strip_prefix(data).unwrap();
            (name.display().to_string(), report)
        });
        Self {
            later: later.collect(),
            left,
            pipelines,
            events,
            files,
        }
    }

    /// Puts everything where the former version had it.
    pub(crate) fn restore(&self, scene: &Scene) -> Launchers {
        let data = scene.data();
        for (name, text) in &self.files {
            write(&data.join(name), text);
        }
        let databases = [
            (&self.pipelines, scene.pipelines(), PIPELINES),
            (&self.events, scene.events(), "events.db"),
        ];
        for (sql, url, file) in databases {
            let mut load = if url.is_empty() {
                let mut python = Command::new("python3");
                python.args(["-c", LOAD]).arg(data.join(file));
                python
            } else {
                let mut psql = Command::new("psql");
                psql.args([url, "--quiet", "--set", "ON_ERROR_STOP=1"]);
                psql
            };
            let mut loading = load.stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = loading.stdin.take().unwrap();
            stdin.write_all(sql.as_bytes()).unwrap();
            if !url.is_empty() && file == PIPELINES {
                stdin.write_all(LEASE.as_bytes()).unwrap();
            }
            drop(stdin);
            assert!(loading.wait().unwrap().success(), "{file}");
        }
        let launchers = self.later.iter().map(|(folder, report)| {
            let folder = data.join(folder);
            write(&folder.join("outcome.later"), report);
            let mut flock = Command::new("flock");
            flock
                .args(["lock", "sh", "-c", LAUNCHER])
                .arg(scene.path(SERVED));
            flock.current_dir(&folder).spawn().unwrap()
        });
        let launchers = Launchers(launchers.collect());
        for folder in self.later.keys() {
            scene::wait_for_lock(&data.join(folder));
        }
        launchers
    }
}

impl Launchers {
    /// They have ended with their commands.
    pub(crate) fn end(self) {
        for mut launcher in self.0 {
            assert!(launcher.wait().unwrap().success());
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The files that a server and its launchers keep, without those of this test.
fn files(data: &Path) -> BTreeMap<String, String> {
    const OTHERS: [&str; 3] = ["server.log", "port", "ferroflow.toml"];
    let mut found = BTreeMap::new();
    let mut folders = vec![data.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(data).unwrap().display().to_string();
            let is_database = name.contains(".db");
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !is_database && !OTHERS.contains(&name.as_str()) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(name, text);
            }
        }
    }
    found
}
