//! Container images without a container engine.
//!
//! An archive is an OCI layout and what `docker save` writes at once, so `docker load`, `podman
//! load`, `ctr images import` and `skopeo copy oci-archive:…` take it. The same files give the same
//! bytes: no times, no users of this machine, a fixed order.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::shell;

/// The user of services; nobody in particular.
const USER: u32 = 65532;

/// Builds the image of this project's programs as an archive.
#[derive(Debug, clap::Args)]
pub(crate) struct Image {
    /// The image's name and tag.
    #[arg(long, default_value = concat!("ferroflow:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// Where the archive goes; default target/ferroflow-image.tar.
    #[arg(long)]
    output: Option<PathBuf>,
    /// How the programs are built: dist for release, quick for trying out.
    #[arg(long, default_value = "dist")]
    profile: String,
}

impl Image {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let programs = shell::build_static(&self.profile)?;
        let output = self
            .output
            .unwrap_or_else(|| shell::target().join("ferroflow-image.tar"));
        let digest = archive(&self.name, &ferroflow(&programs)?, &settings(), &output)?;
        println!("{}: {} {digest}", output.display(), self.name);
        Ok(())
    }
}

/// The layer with this project's programs and what they need beside them.
pub(crate) fn ferroflow(programs: &Path) -> anyhow::Result<Vec<u8>> {
    let mut layer = Layer::default();
    for folder in ["etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/bin"] {
        layer.folder(folder, 0o755)?;
    }
    layer.folder("tmp", 0o1777)?;
    layer.certificates()?;
    let users = format!("root:x:0:0::/:\nferroflow:x:{USER}:{USER}::/tmp:\n");
    layer.file("etc/passwd", 0o644, users.as_bytes())?;
    let groups = format!("root:x:0:\nferroflow:x:{USER}:\n");
    layer.file("etc/group", 0o644, groups.as_bytes())?;
    for program in ["ferroflow", "ferroflow-launcher"] {
        layer.copy(&programs.join(program), &format!("usr/bin/{program}"))?;
    }
    layer.finish()
}

/// How the image of this project's programs is run.
pub(crate) fn settings() -> Value {
    json!({
        "Entrypoint": ["/usr/bin/ferroflow"],
        "User": format!("{USER}:{USER}"),
        "WorkingDir": "/tmp",
        "Env": ["PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
        "Labels": {
            "org.opencontainers.image.title": "ferroflow",
            "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        },
    })
}

/// A layer in the making.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    pub(crate) fn folder(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        let path = format!("{path}/");
        Ok(self.0.append_data(&mut header, path, std::io::empty())?)
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        Ok(self.0.append_data(&mut header, path, content)?)
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        Ok(self.0.append_link(&mut header, path, target)?)
    }

    /// Adds a program of this machine.
    pub(crate) fn copy(&mut self, from: &Path, path: &str) -> anyhow::Result<()> {
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.file(path, 0o755, &content)
    }

    /// The authorities that this machine trusts.
    pub(crate) fn certificates(&mut self) -> anyhow::Result<()> {
        let trusted = Path::new("/etc/ssl/certs/ca-certificates.crt");
        if trusted.exists() {
            let content = fs::read(trusted)?;
            self.file("etc/ssl/certs/ca-certificates.crt", 0o644, &content)?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> anyhow::Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A piece of an image, known by its digest.
struct Blob<'a> {
    hash: String,
    content: std::borrow::Cow<'a, [u8]>,
}

impl<'a> Blob<'a> {
    fn new(content: impl Into<std::borrow::Cow<'a, [u8]>>) -> Self {
        let content = content.into();
        let hash = hex::encode(Sha256::digest(&content));
        Self { hash, content }
    }

    fn json(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hash)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{media_type}"),
            "digest": format!("sha256:{}", self.hash),
            "size": self.content.len(),
        })
    }
}

/// Writes an image of one layer to `output`; the digest of its manifest.
pub(crate) fn archive(
    name: &str,
    layer: &[u8],
    settings: &Value,
    output: &Path,
) -> anyhow::Result<String> {
    let layer = Blob::new(layer);
    let config = Blob::json(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.hash)]},
    }));
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("config.v1+json"),
        "layers": [layer.descriptor("layer.v1.tar")],
    }));
    let mut entry = manifest.descriptor("manifest.v1+json");
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let docker = json!([
        {"Config": config.path(), "RepoTags": [name], "Layers": [layer.path()]}
    ]);
    let layout = json!({"imageLayoutVersion": "1.0.0"});

    let part = output.with_extension("part");
    let file = File::create(&part).with_context(|| format!("writing {}", part.display()))?;
    let mut archive = tar::Builder::new(file);
    for (path, value) in [
        ("oci-layout", layout),
        ("index.json", index),
        ("manifest.json", docker),
    ] {
        append(&mut archive, path, value.to_string().as_bytes())?;
    }
    for blob in [&config, &manifest, &layer] {
        append(&mut archive, &blob.path(), &blob.content)?;
    }
    archive.into_inner()?.flush()?;
    fs::rename(&part, output)?;
    Ok(format!("sha256:{}", manifest.hash))
}

fn append(archive: &mut tar::Builder<File>, path: &str, content: &[u8]) -> anyhow::Result<()> {
    let mut header = header(tar::EntryType::Regular, 0o644, content.len() as u64);
    Ok(archive.append_data(&mut header, path, Cursor::new(content))?)
}

/// This machine's, as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_programs_give_the_same_archive() {
        let made = || {
            let folder = tempfile::tempdir().unwrap();
            for program in ["ferroflow", "ferroflow-launcher"] {
                fs::write(folder.path().join(program), program).unwrap();
            }
            let layer = ferroflow(folder.path()).unwrap();
            let output = folder.path().join("image.tar");
            let digest = archive("a/b:c", &layer, &settings(), &output).unwrap();
            (digest, fs::read(output).unwrap())
        };

        assert_eq!(made(), made());
    }

    #[test]
    fn both_kinds_of_index_lead_to_blobs_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("image.tar");

        let digest = archive("a/b:c", b"layer", &json!({}), &output).unwrap();

        let mut files = std::collections::BTreeMap::new();
        let mut archive = tar::Archive::new(File::open(&output).unwrap());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(path, content);
        }
        let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
        let blob = |digest: &Value| digest.as_str().unwrap().replace("sha256:", "blobs/sha256/");
        assert_eq!(json("index.json")["manifests"][0]["digest"], digest);
        let manifest = json(&blob(&json!(digest)));
        let layer = blob(&manifest["layers"][0]["digest"]);
        assert_eq!(files[&layer], b"layer");
        let docker = &json("manifest.json")[0];
        assert_eq!(docker["Layers"][0], json!(layer));
        assert_eq!(docker["Config"], json!(blob(&manifest["config"]["digest"])));
    }
}
