//! Which Python a step runs on: the one of its image where this machine has it.
//!
//! Looked for, in this order: the configured interpreter, `python3.N` on the PATH, versions of pyenv,
//! those that uv manages. Where a mirror for uv is configured, it is asked for what is not there.

use std::path::{Path, PathBuf};

use crate::tool::{self, Interpreter, find_python};
use crate::{EnvError, PythonConfig};

/// A version of CPython, as tags of the image `python` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PythonVersion {
    minor: u32,
    patch: Option<u32>,
}

impl std::fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "3.{}", self.minor)?;
        self.patch.map_or(Ok(()), |patch| write!(f, ".{patch}"))
    }
}

impl PythonVersion {
    /// The version of an image `python:3.N`, `python:3.N.P`, or one of these with a variant behind
    /// (`-slim`, `-bookworm`, …), from any registry.
    pub fn of_image(image: &str) -> Option<Self> {
        let image = image.split('@').next().unwrap_or(image);
        let (repository, tag) = image.rsplit_once(':')?;
        if repository.rsplit('/').next() != Some("python") {
            return None;
        }
        Self::parse(tag.split('-').next().unwrap_or(tag))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("3.")?.split('.').map(str::parse);
        let (minor, patch) = (parts.next()?.ok()?, parts.next().transpose().ok()?);
        parts.next().is_none().then_some(Self { minor, patch })
    }

    /// Whether a Python is of this version, as far as it is named.
    pub fn fits(self, found: Self) -> bool {
        self.minor == found.minor && (self.patch.is_none() || self.patch == found.patch)
    }
}

impl Interpreter {
    /// Its version of CPython 3.
    pub(crate) fn python_version(&self) -> Option<PythonVersion> {
        let (kind, rest) = self.version.split_once(' ')?;
        let number = rest.split(' ').next()?;
        kind.starts_with("cpython")
            .then(|| PythonVersion::parse(number))?
    }
}

/// The interpreter that is nearest to `wanted`: of its version, of its minor version, or the
/// configured one.
pub(crate) async fn choose(
    config: &PythonConfig,
    wanted: Option<PythonVersion>,
) -> Result<Interpreter, EnvError> {
    let own = find_python(config, &config.interpreter).await;
    let Some(wanted) = wanted else {
        return own;
    };
    let fits = |found: &Interpreter| {
        found
            .python_version()
            .is_some_and(|found| wanted.fits(found))
    };
    if let Ok(own) = &own
        && fits(own)
    {
        return Ok(own.clone());
    }
    let mut nearest = own
        .as_ref()
        .ok()
        .cloned()
        .filter(|own| is_near(own, wanted));
    // First what is on this machine; uv's mirror, if there is one, only for a version that is not.
    for use_mirror in [false, true] {
        if use_mirror && !install_from_mirror(config, wanted).await {
            break;
        }
        for path in candidates(config, wanted) {
            let Ok(found) = find_python(config, &path).await else {
                continue;
            };
            if fits(&found) {
                return Ok(found);
            }
            if nearest.is_none() && is_near(&found, wanted) {
                nearest = Some(found);
            }
        }
    }
    nearest.map_or(own, Ok)
}

fn is_near(found: &Interpreter, wanted: PythonVersion) -> bool {
    found
        .python_version()
        .is_some_and(|found| found.minor == wanted.minor)
}

/// Where a Python of the minor version may be, the newest first.
fn candidates(config: &PythonConfig, wanted: PythonVersion) -> Vec<String> {
    let variable = |name: &str| config.variable(name).map(PathBuf::from);
    let home = variable("HOME");
    let in_home = |inner: &str| home.as_ref().map(|home| home.join(inner));
    let pyenv = variable("PYENV_ROOT").or_else(|| in_home(".pyenv"));
    let data = variable("XDG_DATA_HOME").or_else(|| in_home(".local/share"));
    let managed =
        variable("UV_PYTHON_INSTALL_DIR").or_else(|| data.map(|data| data.join("uv/python")));
    let folders = [
        pyenv.map(|pyenv| pyenv.join("versions")),
        managed,
        Some(config.interpreters_dir()),
    ];
    let mut found = vec![format!("python3.{}", wanted.minor)];
    for folder in folders.into_iter().flatten() {
        let mut versions: Vec<_> = versions_in(&folder)
            .into_iter()
            .filter(|(version, _)| version.minor == wanted.minor)
            .collect();
        // The patch level that is wanted, then the newest.
        versions.sort_by_key(|(version, _)| std::cmp::Reverse((wanted.fits(*version), *version)));
        let paths = versions.into_iter().map(|(_, path)| path);
        found.extend(paths.map(|path| path.join("bin/python3").display().to_string()));
    }
    found
}

/// Folders that are named by a version: `3.11.7`, or `cpython-3.11.7-linux-x86_64-gnu` as uv does.
fn versions_in(folder: &Path) -> Vec<(PythonVersion, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        let version = name.strip_prefix("cpython-").unwrap_or(name);
        let version = version.split(['-', '+']).next()?;
        Some((PythonVersion::parse(version)?, entry.path()))
    });
    named.collect()
}

/// Lets uv fetch the version from the configured mirror; whether there is something new.
async fn install_from_mirror(config: &PythonConfig, wanted: PythonVersion) -> bool {
    if config.variable("UV_PYTHON_INSTALL_MIRROR").is_none() {
        return false;
    }
    let Ok(python) = find_python(config, &config.interpreter).await else {
        return false;
    };
    let uv = match tool::find_uv(config, &python).await {
        Ok(uv) => uv,
        Err(error) => {
            tracing::warn!(%error, "no Python can be fetched");
            return false;
        }
    };
    tracing::info!(version = %wanted, "fetching a Python from the mirror");
    let result = tool::tool(config, &uv)
        .args(["python", "install", "--quiet", "--no-bin", "--install-dir"])
        .arg(config.interpreters_dir())
        .arg(wanted.to_string())
        .output()
        .await;
    match result {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let problem = tool::output_tail(&output, &config.secrets());
            tracing::warn!(version = %wanted, problem, "the mirror does not give this Python");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "no Python can be fetched");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_python_name_their_version() {
        for (image, expected) in [
            ("python:3.11", Some("3.11")),
            ("python:3.9-slim", Some("3.9")),
            ("python:3.11.4-slim-bookworm", Some("3.11.4")),
            ("docker.io/library/python:3.12", Some("3.12")),
            ("registry:5000/mirror/python:3.12@sha256:00", Some("3.12")),
            ("python", None),
            ("python:3", None),
            ("python:2.7", None),
            ("python:latest", None),
            ("my-python:3.11", None),
            ("python:3.x", None),
            ("python:3.11.4.5", None),
        ] {
            let found = PythonVersion::of_image(image).map(|version| version.to_string());
            assert_eq!(found.as_deref(), expected, "{image}");
        }
    }

    #[test]
    fn versions_are_found_newest_first() {
        let root = tempfile::tempdir().unwrap();
        for version in ["3.9.18", "3.9.2", "3.10.1", "system"] {
            std::fs::create_dir_all(root.path().join(".pyenv/versions").join(version)).unwrap();
        }
        let managed = ".local/share/uv/python/cpython-3.9.20-linux-x86_64-gnu";
        std::fs::create_dir_all(root.path().join(managed)).unwrap();
        let home = ("HOME".to_owned(), root.path().display().to_string());
        let config = PythonConfig::new(
            root.path().join("envs"),
            "python3".to_owned(),
            std::iter::once(home),
        );
        let of = |text: &str| {
            let wanted = PythonVersion::parse(text).unwrap();
            let found = candidates(&config, wanted).into_iter();
            let inner = found.map(|path| {
                let path = path.replace(&format!("{}/", root.path().display()), "");
                path.replace("/bin/python3", "")
            });
            inner.collect::<Vec<_>>()
        };

        let (new, old) = (".pyenv/versions/3.9.18", ".pyenv/versions/3.9.2");
        assert_eq!(of("3.9"), ["python3.9", new, old, managed]);
        assert_eq!(of("3.9.2"), ["python3.9", old, new, managed]);
    }
}
