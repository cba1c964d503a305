//! `ferroflow artifact download`.

use std::io::{ErrorKind, Write as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use ferroflow_proto::google::api::HttpBody;
use ferroflow_proto::pipelines::v1::{
    Artifact, ArtifactFile, ListArtifactFilesRequest, ReadArtifactRequest,
};
use tonic::Streaming;

use super::is_metrics;
use crate::cli::output::{bytes, note, size, status_error};
use crate::cli::{Channel, clients, pages};

/// The files of an artifact that is a folder; none of one that is a file.
pub(super) async fn files(
    channel: &Channel,
    artifact_id: i64,
) -> anyhow::Result<Vec<ArtifactFile>> {
    let mut client = clients::tasks(channel);
    pages::all(async |page_token| {
        let request = ListArtifactFilesRequest {
            artifact_id,
            page_token,
            ..ListArtifactFilesRequest::default()
        };
        let listed = client.list_artifact_files(request).await;
        let page = listed.map_err(status_error)?.into_inner();
        Ok((page.files, page.next_page_token))
    })
    .await
}

/// The content of an artifact, or of the file `inner` in the folder that it is.
async fn content(
    channel: &Channel,
    artifact_id: i64,
    inner: &str,
) -> anyhow::Result<Streaming<HttpBody>> {
    let request = ReadArtifactRequest {
        artifact_id,
        path: inner.to_owned(),
    };
    let content = clients::tasks(channel).read_artifact(request).await;
    Ok(content.map_err(status_error)?.into_inner())
}

pub(super) async fn run(
    channel: Channel,
    artifact: &Artifact,
    to: Option<PathBuf>,
    inner: &str,
    force: bool,
) -> anyhow::Result<()> {
    let id = artifact.artifact_id;
    if to.as_deref() == Some(Path::new("-")) {
        let mut content = content(&channel, id, inner).await?;
        while let Some(piece) = content.message().await.map_err(status_error)? {
            bytes(&piece.data)?;
        }
        return Ok(());
    }
    let files = if inner.is_empty() {
        files(&channel, id).await?
    } else {
        Vec::new()
    };
    let to = to.unwrap_or_else(|| PathBuf::from(default_name(artifact, inner)));
    if files.is_empty() {
        let file = if to.is_dir() {
            to.join(default_name(artifact, inner))
        } else {
            to
        };
        let length = write(&channel, id, inner, &file, force).await?;
        note(&format!("{} ({})", file.display(), size(length)));
        return Ok(());
    }
    let mut total_size = 0;
    for file in &files {
        let path = join_inside(&to, &file.path)?;
        total_size += write(&channel, id, &file.path, &path, force).await?;
    }
    let count = files.len();
    note(&format!(
        "{} ({count} files, {})",
        to.display(),
        size(total_size)
    ));
    Ok(())
}

/// The last part of a path that is a name for a file here.
fn default_name(artifact: &Artifact, inner: &str) -> String {
    let path = if inner.is_empty() {
        &artifact.uri
    } else {
        inner
    };
    let last = path
        .rsplit('/')
        .find(|part| !part.is_empty() && *part != "..");
    let name = last.unwrap_or("artifact").to_owned();
    if is_metrics(artifact) && !name.contains('.') {
        return format!("{name}.json");
    }
    name
}

/// The path of one of the artifact's files below `to`.
fn join_inside(to: &Path, inner: &str) -> anyhow::Result<PathBuf> {
    // The names come from whoever made the artifact, and must not lead out of the folder.
    let inner = Path::new(inner);
    if !inner
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        bail!(
            "the artifact has a file {} that would leave {}",
            inner.display(),
            to.display()
        );
    }
    Ok(to.join(inner))
}

/// Writes one file; what is there is replaced only when that is asked for, and in one step.
async fn write(
    channel: &Channel,
    artifact_id: i64,
    inner: &str,
    to: &Path,
    force: bool,
) -> anyhow::Result<i64> {
    let shown = to.display();
    if !force && to.symlink_metadata().is_ok() {
        bail!("{shown} is there already: --force replaces it, --to writes elsewhere");
    }
    let mut content = content(channel, artifact_id, inner).await?;
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // In the same folder: a rename cannot lead to another file system.
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    let mut length = 0;
    while let Some(piece) = content.message().await.map_err(status_error)? {
        file.write_all(&piece.data)
            .with_context(|| format!("cannot write {shown}"))?;
        length += i64::try_from(piece.data.len()).unwrap_or(i64::MAX);
    }
    readable(&file).with_context(|| format!("cannot write {shown}"))?;
    // Somebody may have made the file since it was looked for.
    let persisted = if force {
        file.persist(to)
    } else {
        file.persist_noclobber(to)
    };
    match persisted {
        Ok(_) => Ok(length),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            bail!("{shown} is there already: --force replaces it, --to writes elsewhere")
        }
        Err(error) => Err(error.error).with_context(|| format!("cannot write {shown}")),
    }
}

/// Temporary files are their owner's only; what is downloaded is a file like any other.
fn readable(file: &tempfile::NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_of_an_artifact_leaves_the_folder() {
        let to = Path::new("model");

        assert_eq!(
            join_inside(to, "a/b.bin").unwrap(),
            Path::new("model/a/b.bin")
        );
        for outside in ["../x", "/etc/passwd", "a/../../x"] {
            assert!(join_inside(to, outside).is_err(), "{outside}");
        }
    }
}
