//! A real cluster of one node: this machine.
//!
//! Needs root, because containers do. etcd does not wait for the disk: its data is as short-lived
//! as the cluster.

mod components;
mod configs;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::getuid;
use serde_json::Value;

use super::{daemon, images, node, pki, state, tools, wait};
use components::Component;
pub(super) use configs::PODS;
use pki::Pki;

/// The cluster's files and its node's address.
pub(super) struct Cluster {
    pub(super) folder: PathBuf,
    pub(super) node: String,
    pub(super) pki: Pki,
}

/// The token of every component and of the administrator; the API listens for this machine.
pub(super) const TOKEN: &str = "ferroflow-testbed";

const READY_TIMEOUT: Duration = Duration::from_secs(90);

impl Cluster {
    fn open() -> anyhow::Result<Self> {
        let folder = state("kubernetes")?;
        let node = node::address()?;
        let pki = Pki::ensure(&folder.join("pki"), &node)?;
        Ok(Self { folder, node, pki })
    }

    /// Writes a file of the cluster; its path.
    pub(super) fn write(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    pub(super) fn write_json(&self, name: &str, content: &Value) -> anyhow::Result<PathBuf> {
        self.write(name, &serde_json::to_string_pretty(content)?)
    }
}

/// The administrator's kubeconfig.
pub(super) fn kubeconfig() -> anyhow::Result<PathBuf> {
    Ok(state("kubernetes")?.join("admin.kubeconfig"))
}

pub(super) fn is_up() -> bool {
    Component::ALL
        .iter()
        .all(|component| daemon::is_running(component.name()))
}

pub(super) fn up() -> anyhow::Result<()> {
    if !getuid().is_root() {
        bail!("containers need root here: set KUBECONFIG to use another cluster");
    }
    tools::packages("containerd", &["containerd", "runc"])?;
    tools::packages("/usr/lib/cni/bridge", &["containernetworking-plugins"])?;
    for (program, package) in [
        ("iptables", "iptables"),
        ("nft", "nftables"),
        ("conntrack", "conntrack"),
        ("socat", "socat"),
    ] {
        tools::packages(program, &[package])?;
    }
    if !tools::is_installed("kubectl") {
        bail!("kubectl is needed: https://kubernetes.io/docs/tasks/tools");
    }
    tools::kubernetes()?;
    tools::etcd()?;
    tools::coredns()?;
    let cluster = Cluster::open()?;
    configs::write(&cluster)?;
    for component in Component::ALL {
        ensure(component, &cluster)?;
        match component {
            Component::Containerd => images::ensure()?,
            Component::Apiserver => apply(&configs::objects(&cluster))?,
            _ => {}
        }
    }
    ready()
}

/// Starts a component unless it runs, and waits until it answers.
fn ensure(component: Component, cluster: &Cluster) -> anyhow::Result<()> {
    let mut command = component.command(cluster)?;
    let answers = || component.answers(cluster);
    daemon::ensure(component.name(), &mut command, READY_TIMEOUT, answers)
}

/// Whether pods can run on it.
pub(super) fn is_healthy() -> bool {
    let path = "jsonpath={.items[*].spec.unschedulable}";
    kubectl(&["get", "nodes", "-o", path]).is_ok_and(|found| found.trim().is_empty())
}

/// Waits until pods can run.
fn ready() -> anyhow::Result<()> {
    wait("the node is not ready", READY_TIMEOUT, || {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        kubectl(&["get", "nodes", "-o", path]).is_ok_and(|found| found.trim() == "True")
    })?;
    // A test that drained it may have ended before it was given back.
    kubectl(&["uncordon", "testbed"])?;
    // The scheduler counts them like real ones; pipelines that ask for them can be tried.
    let accelerators = r#"[{"op":"add","path":"/status/capacity/nvidia.com~1gpu","value":"4"}]"#;
    kubectl(&[
        "patch",
        "node",
        "testbed",
        "--subresource=status",
        "--type=json",
        "-p",
        accelerators,
    ])?;
    wait(
        "the default service account is missing",
        READY_TIMEOUT,
        || kubectl(&["get", "serviceaccount", "default"]).is_ok(),
    )
}

/// Stops the cluster; containers of pods end with it.
pub(super) fn down() -> anyhow::Result<()> {
    daemon::stop(Component::Kubelet.name())?;
    if daemon::is_running(Component::Containerd.name()) {
        let tasks = ctr(&["tasks", "ls", "-q"])?;
        for task in tasks.lines() {
            // One that has ended meanwhile is what is wanted.
            let _ended = ctr(&["tasks", "kill", "-s", "SIGKILL", task]).is_err();
        }
        let containers = ctr(&["containers", "ls", "-q"])?;
        for container in containers.lines() {
            let _task = ctr(&["tasks", "delete", "-f", container]).is_err();
            let _gone = ctr(&["containers", "delete", container]).is_err();
        }
    }
    for component in Component::ALL.iter().rev() {
        daemon::stop(component.name())?;
    }
    unmount()?;
    // Pods are known to the API server only, whose data goes with them.
    let folder = state("kubernetes")?;
    for subfolder in ["etcd", "kubelet", "run"] {
        match fs::remove_dir_all(folder.join(subfolder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(subfolder);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Volumes of pods that were there at the end.
fn unmount() -> anyhow::Result<()> {
    let folder = state("kubernetes")?.display().to_string();
    let mounts = fs::read_to_string("/proc/mounts")?;
    let ours = mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|path| path.starts_with(&folder));
    for path in ours.collect::<Vec<_>>().into_iter().rev() {
        Command::new("umount").args(["-l", path]).status()?;
    }
    Ok(())
}

/// Starts a component that was killed.
pub(super) fn start(name: &str) -> anyhow::Result<()> {
    let cluster = Cluster::open()?;
    let component = Component::ALL
        .into_iter()
        .find(|component| component.name() == name)
        .with_context(|| format!("{name} is no process of the cluster"))?;
    ensure(component, &cluster)
}

/// Asks the cluster's container runtime.
pub(super) fn ctr(arguments: &[&str]) -> anyhow::Result<String> {
    let socket = state("kubernetes")?.join("run/containerd.sock");
    let mut ctr = Command::new("ctr");
    ctr.arg("--address")
        .arg(socket)
        .args(["-n", "k8s.io"])
        .args(arguments);
    output(&mut ctr)
}

/// Asks the cluster's API as its administrator.
pub(crate) fn kubectl(arguments: &[&str]) -> anyhow::Result<String> {
    let mut kubectl = Command::new("kubectl");
    kubectl
        .arg("--kubeconfig")
        .arg(kubeconfig()?)
        .args(arguments);
    output(&mut kubectl)
}

fn apply(objects: &Value) -> anyhow::Result<()> {
    let file = state("kubernetes")?.join("objects.json");
    fs::write(&file, objects.to_string())?;
    let file = file.display().to_string();
    kubectl(&["apply", "--server-side", "-f", &file]).map(drop)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            stderr.trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
