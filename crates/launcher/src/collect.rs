//! What a command left: the files that its spec names, and what KFP's contract asks for beside them.
//!
//! A missing file is allowed: the artifact is registered anyway, without a digest.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use ferroflow_artifacts::digest::{self, Content};
use ferroflow_artifacts::stamp;
use serde_json::Map;

use crate::{
    AttemptSpec, Failure, FailureReason, InputLink, OutputArtifact, Outputs, ProducedArtifact, kfp,
};

/// Makes the folders that the command may expect.
pub(crate) fn prepare(spec: &AttemptSpec) -> Result<(), Failure> {
    let artifacts = spec.outputs().map(|artifact| artifact.path.as_path());
    let of_kfp = spec.kfp.iter().flat_map(|kfp| kfp.outputs.files());
    for path in artifacts.chain(of_kfp) {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| {
                Failure::of_io(&format!("cannot make {}", parent.display()), &error)
            })?;
        }
    }
    Ok(())
}

/// Makes links to inputs, in a container whose paths are nobody else's.
pub(crate) fn link(links: &[InputLink]) -> Result<(), Failure> {
    for InputLink { path, target } in links {
        let parent = path.parent().unwrap_or(path);
        let made = fs::create_dir_all(parent).and_then(|()| symlink(target, path));
        match made {
            // Two inputs may be the same artifact.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Failure::of_io(
                    &format!("cannot make {}", path.display()),
                    &error,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Everything that the command gave.
pub(crate) fn collect(spec: &AttemptSpec) -> Result<Outputs, Failure> {
    let mut outputs = match &spec.kfp {
        Some(kfp) => kfp::outputs::collect(&kfp.outputs, &spec.inputs)?,
        None => Outputs::default(),
    };
    for file in &spec.files {
        let produced = collect_file(file)?;
        outputs.artifacts.insert(file.name.clone(), vec![produced]);
    }
    Ok(outputs)
}

/// A file or folder that the command left at its place.
fn collect_file(file: &OutputArtifact) -> Result<ProducedArtifact, Failure> {
    // What is put into a store has a stamp of its own there (`record_stamps`).
    let stamped = digest::local_path(&file.uri).is_some();
    let (stamp, content) = stamp_and_digest(&file.name, Some(&file.path), stamped)?;
    Ok(ProducedArtifact {
        name: file.name.clone(),
        uri: file.uri.clone(),
        metadata: Map::new(),
        digest: content.as_ref().map(|content| content.digest.clone()),
        stamp,
        size_bytes: content.map(|content| content.size_bytes),
        custom_path: None,
    })
}

/// The content at an output's place, and what it looks like if that is to be noted.
pub(crate) fn stamp_and_digest(
    name: &str,
    place: Option<&Path>,
    stamped: bool,
) -> Result<(Option<String>, Option<Content>), Failure> {
    let failed = |error: io::Error| unreadable(name, &error);
    let Some(place) = place else {
        return Ok((None, None));
    };
    // Before the digest: what changes in between then has another stamp than the one that is noted.
    let stamp = if stamped {
        stamp::of_path(place).map_err(failed)?
    } else {
        None
    };
    Ok((stamp, digest::of_path(place).map_err(failed)?))
}

/// The command ended well: what is wrong is what it left, or there is no room for it.
pub(crate) fn unreadable(name: &str, error: &io::Error) -> Failure {
    let failure = Failure::of_io(&format!("output artifact {name}"), error);
    match failure.reason {
        FailureReason::NoSpace => failure,
        _ => Failure::new(FailureReason::Output, failure.message),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use uuid::Uuid;

    use super::*;
    use crate::{AttemptKey, Domain, OwnerKey};
    use ferroflow_types::Namespace;

    fn file(path: PathBuf, uri: &str) -> OutputArtifact {
        OutputArtifact {
            name: "metrics".to_owned(),
            list: false,
            uri: uri.to_owned(),
            path,
        }
    }

    fn spec(files: Vec<OutputArtifact>) -> AttemptSpec {
        let owner = OwnerKey {
            domain: "tuning".parse::<Domain>().unwrap(),
            namespace: Namespace::single_user(),
            id: Uuid::from_u128(1),
        };
        let key = AttemptKey {
            owner,
            item: Uuid::from_u128(2),
            attempt: 1,
        };
        AttemptSpec {
            files,
            ..AttemptSpec::new(key, "/work".into())
        }
    }

    #[test]
    fn files_are_collected_without_a_contract_of_kfp() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().join("deep/metrics.log");
        let there = root.path().join("store/metrics.log");
        let spec = spec(vec![
            file(here.clone(), &here.display().to_string()),
            OutputArtifact {
                name: "stored".to_owned(),
                ..file(there.clone(), "s3://bucket/metrics.log")
            },
            OutputArtifact {
                name: "none".to_owned(),
                ..file(root.path().join("none"), "/none")
            },
        ]);
        prepare(&spec).unwrap();
        for path in [&here, &there] {
            fs::write(path, "loss=0.1\n").unwrap();
        }

        let found = collect(&spec).unwrap();

        assert!(found.parameters.is_empty());
        let one = |name: &str| found.artifacts[name][0].clone();
        assert_eq!(one("metrics").size_bytes, Some(9));
        assert_eq!(one("metrics").digest, one("stored").digest);
        assert!(one("metrics").stamp.is_some());
        // A stored one is looked at where it is kept, once it is there.
        assert_eq!(one("stored").stamp, None);
        assert_eq!(one("stored").uri, "s3://bucket/metrics.log");
        assert_eq!(one("none").digest, None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_wrong_output() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("metrics");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let uri = path.display().to_string();

        let failure = collect(&spec(vec![file(path, &uri)])).unwrap_err();

        assert_eq!(failure.reason, FailureReason::Output);
        let message = &failure.message;
        assert!(
            message.starts_with("output artifact metrics: "),
            "{message}"
        );
        let full = io::ErrorKind::StorageFull.into();
        assert_eq!(unreadable("model", &full).reason, FailureReason::NoSpace);
    }
}
