//! A pipeline inside a .zip or .tar.gz.
//!
//! Only the one member that is the pipeline is unpacked, into memory, up to a limit. Members that
//! would land outside a folder, links, and more members than anyone packs are refused by name.

use std::io::{Cursor, Read};
use std::path::{Component, Path};

use ferroflow_types::Error;
use flate2::read::GzDecoder;

use super::{SIZE_MAX, invalid};

/// The kinds of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Zip,
    TarGz,
}

/// Archives with more members are refused.
const MEMBERS_MAX: usize = 1000;

/// An archive that unpacks to more than this many times its size is refused.
const RATIO_MAX: u64 = 100;

/// The member that is taken if it is there; else the first one.
const NAME: &str = "pipeline.yaml";

/// What the first bytes say.
pub(super) fn detect_kind(bytes: &[u8]) -> Option<Kind> {
    // Upstream tells them apart by these two bytes as well.
    match bytes {
        [b'P', b'K', ..] => Some(Kind::Zip),
        [0x1f, 0x8b, ..] => Some(Kind::TarGz),
        _ => None,
    }
}

/// The bytes of the pipeline in the archive.
pub(super) fn extract_pipeline(kind: Kind, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    match kind {
        Kind::Zip => read_zip(bytes),
        Kind::TarGz => read_tar(bytes),
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    invalid(format!(
        "Failed to read a pipeline spec file: the archive is broken: {error}"
    ))
}

fn check_name(name: &Path) -> Result<(), Error> {
    let inside = name
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if inside {
        return Ok(());
    }
    Err(invalid(format!(
        "the archive's member {:?} leads out of it",
        name.display().to_string()
    )))
}

/// The first member must be text; `pipeline.yaml` is taken wherever it is.
fn check_first(name: &str) -> Result<(), Error> {
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        return Ok(());
    }
    Err(invalid(format!(
        "the archive holds no {NAME}, and its first member {name:?} does not end with .yaml or .yml"
    )))
}

/// Reads a member, but no more of it than a pipeline may have.
fn read_limited(name: &str, member: impl Read, archive_size: usize) -> Result<Vec<u8>, Error> {
    // An archive below 1 KiB counts as 1 KiB, so that a small one may unpack to
    // 100 KiB whatever its ratio.
    let limit = (SIZE_MAX as u64).min(RATIO_MAX.saturating_mul(archive_size.max(1024) as u64));
    let mut bytes = Vec::new();
    // One byte beyond the limit tells an end that was cut off from one that just fits.
    member
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(broken)?;
    if bytes.len() as u64 > limit {
        return Err(invalid(format!(
            "the archive's member {name:?} unpacks to more than {limit} bytes"
        )));
    }
    Ok(bytes)
}

fn read_zip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    if archive.len() > MEMBERS_MAX {
        return Err(invalid(format!(
            "the archive has more than {MEMBERS_MAX} members"
        )));
    }
    for at in 0..archive.len() {
        let member = archive.by_index(at).map_err(broken)?;
        check_name(Path::new(member.name()))?;
        if member.is_symlink() {
            return Err(invalid(format!(
                "the archive's member {:?} is a link",
                member.name()
            )));
        }
    }
    let at = match archive.index_for_name(NAME) {
        Some(at) => at,
        None if archive.is_empty() => return Err(invalid("the archive is empty".to_owned())),
        None => {
            check_first(archive.by_index(0).map_err(broken)?.name())?;
            0
        }
    };
    let member = archive.by_index(at).map_err(broken)?;
    let name = member.name().to_owned();
    read_limited(&name, member, bytes.len())
}

fn read_tar(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    // A tar file has no index: members before the pipeline are unpacked too, so the limit is that of
    // the whole stream.
    let unpacked = read_limited("(all)", GzDecoder::new(bytes), bytes.len())?;
    let mut archive = tar::Archive::new(unpacked.as_slice());
    let mut first: Option<(String, Vec<u8>)> = None;
    for (count, entry) in archive.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        if count >= MEMBERS_MAX {
            return Err(invalid(format!(
                "the archive has more than {MEMBERS_MAX} members"
            )));
        }
        let path = entry.path().map_err(broken)?.into_owned();
        let name = path.display().to_string();
        check_name(&path)?;
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            return Err(invalid(format!("the archive's member {name:?} is a link")));
        }
        if !kind.is_file() {
            continue;
        }
        // `tar czf file.tgz .` puts `./` before each name.
        let is_named = path.strip_prefix(".").unwrap_or(&path) == Path::new(NAME);
        // The first file is kept for the case that no `pipeline.yaml` follows.
        if is_named || first.is_none() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(broken)?;
            first = Some((name, bytes));
        }
        if is_named {
            break;
        }
    }
    let (name, bytes) = first.ok_or_else(|| invalid("the archive is empty".to_owned()))?;
    if !name.ends_with(NAME) {
        check_first(&name)?;
    }
    Ok(bytes)
}
