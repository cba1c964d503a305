//! The launcher's program for containers: one file that needs nothing of the image.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Why there is no launcher for containers.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// It is not there, or cannot be read.
    #[error(
        "docker.launcher: {} cannot be read; `cargo xtask launcher` builds one, and a release has \
         it as a file of its own: put it beside this program, or name it",
        .path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It would start on this machine only.
    #[error(
        "docker.launcher: {} is {what}, and images need not have what it is linked to: use what \
         `cargo xtask launcher` builds, or the file of a release",
        .path.display()
    )]
    NotStatic {
        /// Which file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
}

const NAME: &str = "ferroflow-launcher";

/// The launcher that is named, or the one beside this program.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, LauncherError> {
    let path = if let Some(named) = named {
        named.to_path_buf()
    } else {
        let program = std::env::current_exe().unwrap_or_default();
        program.with_file_name(NAME)
    };
    let missing = |source| LauncherError::Missing {
        path: path.clone(),
        source,
    };
    let unsuitable = unsuitable_because(&path).map_err(missing)?;
    if let Some(what) = unsuitable {
        return Err(LauncherError::NotStatic { path, what });
    }
    // The engine mounts it, and takes absolute paths only.
    path.canonicalize().map_err(missing)
}

/// Offsets in an ELF file of 64 bits, and its words (elf(5)).
const HEADER: usize = 64;
const PROGRAM_HEADERS_AT: usize = 32;
const PROGRAM_HEADER_SIZE_AT: usize = 54;
const PROGRAM_HEADER_COUNT_AT: usize = 56;
const INTERPRETER: u32 = 3;

/// What stands against running the program anywhere; nothing when it is linked statically.
fn unsuitable_because(path: &Path) -> io::Result<Option<&'static str>> {
    let mut file = File::open(path)?;
    let mut header = [0; HEADER];
    let mut read = 0;
    while read < HEADER {
        match file.read(&mut header[read..])? {
            0 => return Ok(Some("no program")),
            more => read += more,
        }
    }
    // Magic, 64 bits, little-endian: what the machines that we build for have.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(Some("no program of Linux with 64 bits"));
    }
    let word = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let start = header[PROGRAM_HEADERS_AT..PROGRAM_HEADERS_AT + 8]
        .iter()
        .rev()
        .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let size = word(PROGRAM_HEADER_SIZE_AT);
    // A program with a PT_INTERP header needs the dynamic loader that it names, which an image may
    // lack.
    for index in 0..word(PROGRAM_HEADER_COUNT_AT) {
        file.seek(SeekFrom::Start(start + index * size))?;
        let mut kind = [0; 4];
        file.read_exact(&mut kind)?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(Some("linked to libraries of this machine"));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_that_images_cannot_run_is_refused_with_the_way_out() {
        let refusal = |path: &Path| find(Some(path)).unwrap_err().to_string();

        let missing = refusal(Path::new("/no/such/file"));
        assert!(missing.contains("cargo xtask launcher"), "{missing}");
        // The test's own program is linked as programs are by default.
        let program = std::env::current_exe().unwrap();
        let linked = refusal(&program);
        assert!(linked.contains("linked to libraries"), "{linked}");
        let text = refusal(Path::new("/proc/self/status"));
        assert!(text.contains("no program of Linux"), "{text}");
    }
}
