//! A Docker engine of our own, beside whichever the machine has.
//!
//! Its data, its containerd and its socket are in the test bed's folder, and it touches no rule and
//! no bridge of the machine's network: containers that need one use the machine's (`host`).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::getuid;

use super::{daemon, images, state, tools};

const NAME: &str = "dockerd";
const PID: &str = "dockerd.pid";
const CONTAINERD_PID: &str = "exec/containerd/containerd.pid";
const READY_TIMEOUT: Duration = Duration::from_mins(1);

fn socket() -> anyhow::Result<PathBuf> {
    Ok(state("docker")?.join("docker.sock"))
}

/// The engine's address.
pub(super) fn host() -> anyhow::Result<String> {
    Ok(format!("unix://{}", socket()?.display()))
}

pub(super) fn is_up() -> bool {
    daemon::is_running(NAME)
}

pub(super) fn answers() -> bool {
    cli(&["version"]).is_ok()
}

pub(super) fn up() -> anyhow::Result<()> {
    if !getuid().is_root() {
        bail!("containers need root here: set DOCKER_HOST to use another engine");
    }
    tools::packages(NAME, &["docker.io"])?;
    let folder = state("docker")?;
    if !is_up() {
        // One that was killed took its containerd along, and both left their numbers, which somebody
        // else may have by now.
        for left in [PID, CONTAINERD_PID] {
            daemon::remove(&folder.join(left))?;
        }
    }
    let mut dockerd = Command::new(NAME);
    dockerd
        .arg("--host")
        .arg(host()?)
        .arg("--data-root")
        .arg(folder.join("data"))
        .arg("--exec-root")
        .arg(folder.join("exec"))
        .arg("--pidfile")
        .arg(folder.join(PID))
        .args(["--bridge=none", "--iptables=false", "--ip-masq=false"])
        .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
        .args(["--log-level", "warn"]);
    daemon::ensure(NAME, &mut dockerd, READY_TIMEOUT, answers)?;
    images::ensure_for_docker()
}

/// Stops the engine; containers end with it.
pub(super) fn down() -> anyhow::Result<()> {
    if is_up() {
        let running = cli(&["ps", "--quiet"])?;
        for container in running.lines() {
            // One that has ended meanwhile is what is wanted.
            let _ended = cli(&["kill", container]).is_err();
        }
    }
    daemon::stop(NAME)
}

/// Kills the engine as a crash would, and waits for its containerd, which ends with it.
pub(super) fn crash() -> anyhow::Result<()> {
    let id = fs::read_to_string(state("docker")?.join(CONTAINERD_PID)).unwrap_or_default();
    let containerd = id.trim().parse().ok().and_then(daemon::Process::of);
    daemon::kill(NAME)?;
    containerd.map_or(Ok(()), |containerd| {
        containerd.wait_gone("containerd of Docker")
    })
}

/// Asks the engine.
pub(super) fn cli(arguments: &[&str]) -> anyhow::Result<String> {
    let mut docker = Command::new("docker");
    docker.arg("--host").arg(host()?).args(arguments);
    let output = docker
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {docker:?}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{docker:?} ended with {}: {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
