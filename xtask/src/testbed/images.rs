//! Container images made here, put into the stores of the cluster and of Docker without a registry.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{cache, docker, kubernetes, tools};
use crate::image::{self, Layer};
use crate::shell::run;

pub(super) const PAUSE: &str = "ferroflow.test/pause:1";
/// What the ecosystem's modelcar has, and nothing else.
const MODELCAR: &str = "ferroflow.test/modelcar:1";
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
        let mut layer = Layer::default();
        layer.copy(&program, "pause")?;
        import(PAUSE, &layer.finish()?, &command("/pause"))?;
    }
    if missing(BUSYBOX) {
        import(BUSYBOX, &busybox()?, &command("/bin/sh"))?;
    }
    if missing(MODELCAR) {
        import(MODELCAR, &modelcar()?, &json!({}))?;
    }
    if missing(PYTHON) {
        import(PYTHON, &fs::read(python()?)?, &command("/usr/bin/python3"))?;
    }
    Ok(())
}

/// Puts the images that tests of containers need into Docker's store.
pub(super) fn ensure_for_docker() -> anyhow::Result<()> {
    for name in [BUSYBOX, MODELCAR, PYTHON] {
        if docker::cli(&["image", "inspect", name]).is_ok() {
            continue;
        }
        let (layer, settings) = match name {
            BUSYBOX => (busybox()?, command("/bin/sh")),
            MODELCAR => (modelcar()?, json!({})),
            _ => (fs::read(python()?)?, command("/usr/bin/python3")),
        };
        eprintln!("importing {name} into Docker");
        let folder = tempfile::tempdir_in(cache()?)?;
        let archive = folder.path().join("image.tar");
        image::archive(name, &layer, &settings, &archive)?;
        docker::cli(&["load", "--input", &archive.display().to_string()])?;
    }
    Ok(())
}

/// The image of this project's own programs, as they are now.
pub(super) fn ferroflow(built: &Path) -> anyhow::Result<()> {
    import(FERROFLOW, &image::ferroflow(built)?, &image::settings())
}

/// A layer with a shell and what belongs to it.
fn busybox() -> anyhow::Result<Vec<u8>> {
    tools::packages("/bin/busybox", &["busybox-static"])?;
    let mut layer = Layer::default();
    for folder in ["bin", "etc", "root"] {
        layer.folder(folder, 0o755)?;
    }
    layer.folder("tmp", 0o1777)?;
    layer.copy(Path::new("/bin/busybox"), "bin/busybox")?;
    let applets = Command::new("/bin/busybox").arg("--list").output()?;
    for applet in String::from_utf8(applets.stdout)?.lines() {
        if applet != "busybox" {
            layer.link(&format!("bin/{applet}"), "busybox")?;
        }
    }
    layer.certificates()?;
    layer.finish()
}

/// The files of a model, without a program.
fn modelcar() -> anyhow::Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.folder("models", 0o755)?;
    for file in [
        "added_tokens.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "normalizer.json",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ] {
        layer.file(&format!("models/{file}"), 0o644, b"{}\n")?;
    }
    layer.finish()
}

/// The layer of a Debian with Python and the SDK's runtime; made once.
fn python() -> anyhow::Result<std::path::PathBuf> {
    let tar = cache()?.join("python-3.11.tar");
    if tar.exists() {
        return Ok(tar);
    }
    tools::packages("debootstrap", &["debootstrap"])?;
    eprintln!("making a Debian with Python 3.11 (a minute, once)");
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

/// How a test image is run.
fn command(program: &str) -> Value {
    json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": [program],
    })
}

/// Puts an image of one layer into the cluster's store.
fn import(name: &str, layer: &[u8], settings: &Value) -> anyhow::Result<()> {
    eprintln!("importing {name}");
    let folder = tempfile::tempdir_in(cache()?)?;
    let archive = folder.path().join("image.tar");
    image::archive(name, layer, settings, &archive)?;
    kubernetes::ctr(&["images", "import", &archive.display().to_string()])?;
    Ok(())
}
