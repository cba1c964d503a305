//! Container images made here, put into the cluster's store without a registry.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::json;

use super::{cache, kubernetes, tools};
use crate::shell::run;

pub(super) const PAUSE: &str = "ferroflow.test/pause:1";
/// Programs of this checkout.
pub(crate) const FERROFLOW: &str = "ferroflow.test/ferroflow:dev";
const BUSYBOX: &str = "ferroflow.test/busybox:1";
/// A Debian with Python 3.11.
pub(crate) const PYTHON: &str = "ferroflow.test/python:3.11";

/// A process that does nothing and takes care of orphans, as the first of every pod must.
const PAUSE_SOURCE: &str = "\
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int s) { exit(0); }
static void reap(int s) { while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
  signal(SIGTERM, end); signal(SIGINT, end); signal(SIGCHLD, reap);
  for (;;) pause();
}
";

/// Puts the images that the cluster and its tests need into its store.
pub(super) fn ensure() -> anyhow::Result<()> {
    let known = kubernetes::ctr(&["images", "ls", "-q"])?;
    let missing = |name: &str| !known.lines().any(|line| line == name);
    if missing(PAUSE) {
        let folder = tempfile::tempdir()?;
        let (source, program) = (folder.path().join("pause.c"), folder.path().join("pause"));
        fs::write(&source, PAUSE_SOURCE)?;
        let mut cc = Command::new("cc");
        run(cc.args(["-Os", "-static", "-o"]).arg(&program).arg(&source))?;
        let mut layer = tar::Builder::new(Vec::new());
        layer.sparse(false);
        layer.append_path_with_name(&program, "pause")?;
        import(PAUSE, layer.into_inner()?, &["/pause"])?;
    }
    if missing(BUSYBOX) {
        import(BUSYBOX, busybox()?, &["/bin/sh"])?;
    }
    if missing(PYTHON) {
        import(PYTHON, fs::read(python()?)?, &["/usr/bin/python3"])?;
    }
    Ok(())
}

/// The image of this project's own programs, as they are now.
pub(super) fn ferroflow(built: &Path) -> anyhow::Result<()> {
    let mut layer = tar::Builder::new(Vec::new());
    layer.sparse(false);
    directory(&mut layer, "usr/bin")?;
    directory(&mut layer, "tmp")?;
    for program in ["ferroflow", "ferroflow-launcher"] {
        layer.append_path_with_name(built.join(program), format!("usr/bin/{program}"))?;
    }
    certificates(&mut layer)?;
    import(FERROFLOW, layer.into_inner()?, &["/usr/bin/ferroflow"])
}

/// A layer with a shell and what belongs to it.
fn busybox() -> anyhow::Result<Vec<u8>> {
    tools::packages("/bin/busybox", &["busybox-static"])?;
    let mut layer = tar::Builder::new(Vec::new());
    layer.sparse(false);
    for folder in ["bin", "tmp", "etc", "root"] {
        directory(&mut layer, folder)?;
    }
    layer.append_path_with_name("/bin/busybox", "bin/busybox")?;
    let applets = Command::new("/bin/busybox").arg("--list").output()?;
    for applet in String::from_utf8(applets.stdout)?.lines() {
        if applet != "busybox" {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
    }
    certificates(&mut layer)?;
    Ok(layer.into_inner()?)
}

fn directory(layer: &mut tar::Builder<Vec<u8>>, path: &str) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(if path == "tmp" { 0o1777 } else { 0o755 });
    Ok(layer.append_data(&mut header, format!("{path}/"), std::io::empty())?)
}

/// The authorities that this machine trusts.
fn certificates(layer: &mut tar::Builder<Vec<u8>>) -> anyhow::Result<()> {
    let trusted = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if trusted.exists() {
        let mut file = File::open(trusted)?;
        layer.append_file("etc/ssl/certs/ca-certificates.crt", &mut file)?;
    }
    Ok(())
}

/// The layer of a Debian with Python and the SDK's runtime; made once.
fn python() -> anyhow::Result<std::path::PathBuf> {
    let tar = cache()?.join("python-3.11.tar");
    if tar.exists() {
        return Ok(tar);
    }
    tools::packages("debootstrap", &["debootstrap"])?;
    println!("making a Debian with Python 3.11 (a minute, once)");
    let folder = tempfile::tempdir_in(cache()?)?;
    let root = folder.path().join("root");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args([
        "--variant=minbase",
        "--include=python3,python3-pip,python3-venv,ca-certificates",
        "bookworm",
    ]);
    run(debootstrap.arg(&root).stdout(Stdio::null()))?;
    let at = |path: &str| root.join(path);
    for cache in [
        "var/cache/apt",
        "var/lib/apt/lists",
        "usr/share/doc",
        "usr/share/locale",
    ] {
        fs::remove_dir_all(at(cache)).with_context(|| format!("removing {cache}"))?;
    }
    // The image is no place of Debian's: pip may install what a step asks for.
    fs::remove_file(at("usr/lib/python3.11/EXTERNALLY-MANAGED"))?;
    fs::write(at("usr/bin/python"), "#!/bin/sh\nexec python3 \"$@\"\n")?;
    run(Command::new("chmod").arg("755").arg(at("usr/bin/python")))?;
    let trusted = "etc/ssl/certs/ca-certificates.crt";
    fs::copy(Path::new("/").join(trusted), at(trusted))?;
    if Path::new("/etc/pip.conf").exists() {
        fs::copy("/etc/pip.conf", at("etc/pip.conf"))?;
    }
    let part = tar.with_extension("part");
    let mut pack = Command::new("tar");
    run(pack.arg("-C").arg(&root).arg("-cf").arg(&part).arg("."))?;
    fs::rename(&part, &tar)?;
    Ok(tar)
}

/// Imports an image of one layer.
pub(super) fn import(name: &str, layer: Vec<u8>, command: &[&str]) -> anyhow::Result<()> {
    println!("importing {name}");
    let folder = tempfile::tempdir_in(cache()?)?;
    let archive = folder.path().join("image.tar");
    let digest = sha256(folder.path(), &layer)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": command,
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{
        "Config": "config.json",
        "RepoTags": [name],
        "Layers": ["layer.tar"],
    }]);
    let mut image = tar::Builder::new(File::create(&archive)?);
    for (path, content) in [
        ("config.json", config.to_string().into_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        image.append_data(&mut header, path, Cursor::new(content))?;
    }
    image.finish()?;
    let archive = archive.display().to_string();
    kubernetes::ctr(&["images", "import", &archive])?;
    Ok(())
}

fn sha256(folder: &Path, bytes: &[u8]) -> anyhow::Result<String> {
    let file = folder.join("layer");
    fs::write(&file, bytes)?;
    let output = Command::new("sha256sum").arg(&file).output()?;
    fs::remove_file(file)?;
    let text = String::from_utf8(output.stdout)?;
    let digest = text.split_whitespace().next();
    Ok(digest.context("sha256sum said nothing")?.to_owned())
}
