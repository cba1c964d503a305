//! The program of the former version, whose data this one takes over (`tests/tests/it/upgrade.rs`).

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;

use crate::shell::{build_static_in, program, run};

/// The commit of the former version; moved on with every release.
const COMMIT: &str = "b1955c5e0972b09402c0f132bd5b34c9d932975a";

/// Why it cannot be built.
pub(crate) const UNREACHABLE: &str =
    "the commit of the former version is not in this clone: git fetch --unshallow";

/// Where it is kept, outside the checkout.
fn cache_path() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().context("there is no home folder")?;
    let cache = home.join(".cache/ferroflow-former").join(COMMIT);
    Ok(cache.join("ferroflow"))
}

/// The program, if it was built before.
pub(crate) fn cached() -> anyhow::Result<Option<PathBuf>> {
    Ok(Some(cache_path()?).filter(|cached| cached.exists()))
}

/// Builds it once; `None` in a clone that does not reach back so far.
pub(crate) fn binary() -> anyhow::Result<Option<PathBuf>> {
    if let Some(cached) = cached()? {
        return Ok(Some(cached));
    }
    let commit = format!("{COMMIT}^{{commit}}");
    let mut known = program("git", &["cat-file", "-e", &commit]);
    if !known.stderr(Stdio::null()).status()?.success() {
        return Ok(None);
    }
    eprintln!("building the former version, {COMMIT} (some minutes, once)");
    let sources = tempfile::tempdir()?;
    let archive = sources.path().join("sources.tar");
    let mut export = program("git", &["archive", COMMIT, "--output"]);
    run(export.arg(&archive))?;
    tar::Archive::new(fs::File::open(&archive)?).unpack(sources.path())?;
    // Into our own target folder, for what both have in common. What cargo leaves there under the
    // program's name is replaced by the next build of this version.
    let features = "ferroflow/kafka-tls";
    let built = build_static_in(sources.path(), "quick", &["ferroflow"], features)?;
    let cached = cache_path()?;
    let part = cached.with_extension("part");
    if let Some(cache) = cached.parent() {
        fs::create_dir_all(cache)?;
    }
    fs::copy(built.join("ferroflow"), &part)?;
    fs::rename(part, &cached)?;
    Ok(Some(cached))
}

/// Builds it and says where it is.
pub(crate) fn print() -> anyhow::Result<()> {
    let former = binary()?.context(UNREACHABLE)?;
    println!("export FERROFLOW_FORMER_BIN='{}'", former.display());
    Ok(())
}
