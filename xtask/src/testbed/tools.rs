//! Programs that the parts are made of: Debian packages, Go modules, Maven artifacts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::cache;
use crate::shell::run;

/// The version of Kubernetes.
const KUBERNETES: &str = "v1.34.2";
const ETCD: &str = "v3.6.5";
const COREDNS: &str = "v1.12.4";
/// Made with the libraries of our Kubernetes, so most of it is compiled already.
const HELM: &str = "v3.19.5";
const MINIO: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";

/// The programs of a cluster that are built from the module of Kubernetes.
const COMPONENTS: [&str; 5] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

/// Where built programs are.
pub(super) fn bin(name: &str) -> anyhow::Result<PathBuf> {
    Ok(cache()?.join("bin").join(name))
}

/// A program that is on the path.
pub(crate) fn is_installed(program: &str) -> bool {
    let status = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Installs Debian packages unless `program` is there.
pub(super) fn packages(program: &str, names: &[&str]) -> anyhow::Result<()> {
    if is_installed(program) || Path::new(program).exists() {
        return Ok(());
    }
    if !is_installed("apt-get") {
        bail!("{program} is needed: install what gives it");
    }
    eprintln!("installing {}", names.join(" "));
    let quiet = |command: &mut Command| run(command.stdout(Stdio::null()));
    let mut update = Command::new("apt-get");
    quiet(update.args(["update", "-q"]))?;
    let mut install = Command::new("apt-get");
    quiet(
        install
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(names),
    )
}

fn go() -> anyhow::Result<Command> {
    if !is_installed("go") {
        bail!("Go is needed to build the parts of the test bed: https://go.dev/dl");
    }
    let mut go = Command::new("go");
    // What the environment says of flags is meant for other projects.
    go.env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "0");
    Ok(go)
}

/// Programs of a cluster; built once.
pub(super) fn kubernetes() -> anyhow::Result<()> {
    let missing: Vec<_> = COMPONENTS
        .into_iter()
        .filter(|name| bin(name).is_ok_and(|path| !path.exists()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("building Kubernetes {KUBERNETES} (about five minutes, once)");
    let module = format!("k8s.io/kubernetes@{KUBERNETES}");
    run(go()?.args(["mod", "download", &module]))?;
    let found = go()?.args(["env", "GOMODCACHE"]).output()?;
    let sources = PathBuf::from(String::from_utf8(found.stdout)?.trim()).join(&module);
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("go.mod"), module_of(&sources)?)?;
    let imports: Vec<_> = COMPONENTS
        .iter()
        .map(|name| format!("import _ \"k8s.io/kubernetes/cmd/{name}/app\"\n"))
        .collect();
    fs::write(
        folder.path().join("tools.go"),
        format!("package tools\n\n{}", imports.concat()),
    )?;
    run(go()?.args(["mod", "tidy"]).current_dir(folder.path()))?;
    for name in missing {
        eprintln!("building {name}");
        let flags = format!(
            "-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES} \
             -X k8s.io/component-base/version.gitMajor=1 \
             -X k8s.io/component-base/version.gitMinor=34"
        );
        build(
            folder.path(),
            &flags,
            name,
            &format!("k8s.io/kubernetes/cmd/{name}"),
        )?;
    }
    Ok(())
}

/// A module that needs Kubernetes; its staging modules are released with another number.
fn module_of(sources: &Path) -> anyhow::Result<String> {
    let theirs = fs::read_to_string(sources.join("go.mod"))?;
    let staged = theirs.lines().filter_map(|line| {
        let (name, _) = line.trim().split_once(" => ./staging/")?;
        let version = KUBERNETES.replacen("v1.", "v0.", 1);
        Some(format!("replace {name} => {name} {version}\n"))
    });
    let staged: String = staged.collect();
    Ok(format!(
        "module ferroflow.test/kubernetes\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes {KUBERNETES}\n\n{staged}"
    ))
}

fn build(folder: &Path, flags: &str, name: &str, package: &str) -> anyhow::Result<()> {
    // Written aside first, so that a cut build leaves nothing that looks whole.
    let part = bin(&format!("{name}.part"))?;
    let mut build = go()?;
    build
        .args(["build", "-trimpath", "-ldflags", flags, "-o"])
        .arg(&part)
        .arg(package);
    run(build.current_dir(folder))?;
    fs::rename(part, bin(name)?).with_context(|| format!("keeping {name}"))
}

/// A program that is one package of a module.
fn module(
    name: &str,
    package: &str,
    module: &str,
    version: &str,
    flags: &str,
) -> anyhow::Result<()> {
    if bin(name)?.exists() {
        return Ok(());
    }
    eprintln!("building {name} {version} (some minutes, once)");
    let folder = tempfile::tempdir()?;
    fs::write(
        folder.path().join("go.mod"),
        format!("module ferroflow.test/{name}\n\ngo 1.24.0\n"),
    )?;
    let wanted = format!("{module}@{version}");
    run(go()?.args(["get", &wanted]).current_dir(folder.path()))?;
    build(folder.path(), flags, name, package)
}

pub(super) fn etcd() -> anyhow::Result<()> {
    // The module's main package has no file of its own that can be built from outside.
    if bin("etcd")?.exists() {
        return Ok(());
    }
    eprintln!("building etcd {ETCD}");
    let folder = tempfile::tempdir()?;
    fs::write(
        folder.path().join("go.mod"),
        format!(
            "module ferroflow.test/etcd\n\ngo 1.24.0\n\nrequire go.etcd.io/etcd/server/v3 {ETCD}\n"
        ),
    )?;
    fs::write(
        folder.path().join("main.go"),
        "package main\n\nimport (\n\t\"os\"\n\n\t\"go.etcd.io/etcd/server/v3/etcdmain\"\n)\n\n\
         func main() { etcdmain.Main(os.Args) }\n",
    )?;
    run(go()?.args(["mod", "tidy"]).current_dir(folder.path()))?;
    build(folder.path(), "-s -w", "etcd", ".")
}

pub(super) fn coredns() -> anyhow::Result<()> {
    let package = "github.com/coredns/coredns";
    module("coredns", package, package, COREDNS, "-s -w")
}

pub(super) fn minio() -> anyhow::Result<()> {
    let package = "github.com/minio/minio";
    module("minio", package, package, MINIO, "-s -w")
}

pub(super) fn helm() -> anyhow::Result<()> {
    let (module_name, package) = ("helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm");
    let (_, minor) = KUBERNETES.split_once("v1.").unwrap_or_default();
    let (minor, _) = minor.split_once('.').unwrap_or_default();
    // Without these it takes itself for one of Kubernetes 1.20.
    let knows = ["pkg/chartutil", "pkg/lint/rules"].map(|place| {
        format!(
            " -X {module_name}/{place}.k8sVersionMajor=1 -X {module_name}/{place}.k8sVersionMinor={minor}"
        )
    });
    let flags = format!(
        "-s -w -X {module_name}/internal/version.version={HELM}{}",
        knows.concat()
    );
    module("helm", package, module_name, HELM, &flags)
}
