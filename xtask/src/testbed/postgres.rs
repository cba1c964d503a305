//! PostgreSQL from Debian's package, run as its own user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::{answers, daemon, kubernetes, node, tools, wait};
use crate::shell::run;

const PORT: u16 = 15432;
pub(super) const URL: &str = "postgres://postgres@127.0.0.1:15432/postgres";

/// Who pods are, and the password of one who owns nothing but tests' data.
const PODS_ROLE: &str = "ferroflow";
const PODS_PASSWORD: &str = "ferroflow-test-secret";

/// The data folder; not below a home folder, which other users may not enter.
fn data() -> PathBuf {
    std::env::temp_dir().join("ferroflow-testbed-postgres")
}

fn programs() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")?;
    let newest = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .max();
    newest.context("no PostgreSQL in /usr/lib/postgresql")
}

fn as_postgres(program: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("runuser");
    command
        .args(["-u", "postgres", "--"])
        .arg(programs()?.join(program))
        .current_dir("/")
        .stdout(Stdio::null());
    Ok(command)
}

pub(super) fn is_up() -> bool {
    data().join("postmaster.pid").exists() && answers("127.0.0.1", PORT)
}

/// The server as pods reach it: over the node's address, as a role of their own.
pub(super) fn url_for_pods() -> anyhow::Result<String> {
    let node = node::address()?;
    Ok(format!(
        "postgres://{PODS_ROLE}:{PODS_PASSWORD}@{node}:{PORT}/postgres"
    ))
}

pub(super) fn up() -> anyhow::Result<()> {
    tools::packages("/usr/lib/postgresql", &["postgresql"])?;
    if !is_up() {
        start()?;
    }
    admit_pods()
}

/// Who may come in: everybody on this machine, and pods with a password.
fn admit_pods() -> anyhow::Result<()> {
    let pods = kubernetes::PODS;
    let expected = format!(
        "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all {PODS_ROLE} {pods} scram-sha-256\n"
    );
    let file = data().join("pg_hba.conf");
    if fs::read_to_string(&file).is_ok_and(|found| found == expected) {
        return Ok(());
    }
    let role = format!(
        "DO $$ BEGIN CREATE ROLE {PODS_ROLE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         ALTER ROLE {PODS_ROLE} CREATEDB PASSWORD '{PODS_PASSWORD}'"
    );
    let mut psql = as_postgres("psql")?;
    run(psql.args([URL, "--quiet", "--command", &role]))?;
    fs::write(&file, expected)?;
    let mut reload = as_postgres("pg_ctl")?;
    run(reload.args(["reload", "-D"]).arg(data()))
}

fn start() -> anyhow::Result<()> {
    let data = data();
    if !data.join("PG_VERSION").exists() {
        let mut initdb = as_postgres("initdb")?;
        run(initdb.args(["--auth=trust", "-E", "UTF8", "-D"]).arg(&data))?;
    }
    remove_stale_lock(&data)?;
    let options = format!("-p {PORT} -k /tmp -c listen_addresses=* -c max_connections=200");
    let mut start = as_postgres("pg_ctl")?;
    let log = data.join("server.log");
    start.args(["start", "-w", "-o", &options, "-l"]);
    start.arg(&log).arg("-D").arg(&data);
    run(&mut start).with_context(|| daemon::log_tail(&log))?;
    wait("PostgreSQL does not answer", Duration::from_secs(20), is_up)
}

/// Removes the lock of a server that was killed: its number may be another process' by now, or that
/// of a corpse which nobody buries, and either keeps a new server from starting.
fn remove_stale_lock(data: &Path) -> anyhow::Result<()> {
    let lock = data.join("postmaster.pid");
    let text = fs::read_to_string(&lock).unwrap_or_default();
    let Some(id) = text.lines().next().filter(|id| !id.is_empty()) else {
        return Ok(());
    };
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let is_running = field("Name:").is_some_and(|name| name == "postgres")
        && field("State:").is_some_and(|state| !state.starts_with('Z'));
    if is_running {
        Ok(())
    } else {
        daemon::remove(&lock)
    }
}

pub(super) fn down() -> anyhow::Result<()> {
    stop("fast")
}

/// Stops it as a power cut would, for tests of faults.
pub(super) fn crash() -> anyhow::Result<()> {
    stop("immediate")
}

fn stop(mode: &str) -> anyhow::Result<()> {
    if !data().join("postmaster.pid").exists() {
        return Ok(());
    }
    let mut stop = as_postgres("pg_ctl")?;
    run(stop.args(["stop", "-w", "-m", mode, "-D"]).arg(data()))
}
