//! Input artifacts that are in container images, `oci://` (KServe's modelcars): the image's `/models`,
//! copied out of a container that is made for it and never started.

use std::io;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use ferroflow_artifacts::safe_fs;
use ferroflow_launcher::{AttemptKey, AttemptSpec, Failure, FailureReason, MODELS};
use ferroflow_types::error::chain;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncWriteExt as _;

use super::engine::{refusal, with_retries};
use super::images::{self, ImageRequest, PullPolicy};
use super::{Containers, objects, remove, transfers};

impl Containers {
    /// Brings the inputs that are in images. May be repeated.
    pub(super) async fn copy_models(
        &self,
        spec: &AttemptSpec,
        dir: &Path,
        policy: PullPolicy,
        log: &Path,
    ) -> Result<(), Failure> {
        for input in &spec.inputs {
            let Some(image) = input.image() else { continue };
            let to = transfers::host_path(dir, &input.path);
            // It appears by a rename once all of it is copied, so what is there is whole.
            if to.exists() {
                continue;
            }
            let image = self.config.image(image);
            let wanted = ImageRequest {
                image: &image,
                policy,
                timeout: self.image_pull_timeout(),
                log,
            };
            images::ensure(&self.docker, &spec.key, &wanted).await?;
            let failed = |why: String| {
                let message = format!("cannot fetch {}: {why}", input.uri);
                Failure::new(FailureReason::Transfer, message)
            };
            let container = self
                .temporary_container(&spec.key, &image)
                .await
                .map_err(&failed)?;
            copy_out(&self.docker, &container.name, &image, &to)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    /// A container that holds the image; should we die, who sweeps finds it by its labels.
    async fn temporary_container(
        &self,
        key: &AttemptKey,
        image: &str,
    ) -> Result<TemporaryContainer, String> {
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            // The engine refuses a container without a command, and an image of a model need not
            // have one.
            cmd: Some(vec![MODELS.to_owned()]),
            labels: Some(objects::owner_labels(&key.owner, &self.config)),
            ..ContainerCreateBody::default()
        };
        let made = with_retries(key, || self.docker.create_container(None, body.clone())).await;
        let made =
            made.map_err(|refused| format!("no container can be made: {}", refused.message))?;
        Ok(TemporaryContainer {
            docker: self.docker.clone(),
            name: made.id,
        })
    }
}

/// A container that is removed when it is let go of, also by an attempt that is stopped.
struct TemporaryContainer {
    docker: Docker,
    name: String,
}

impl Drop for TemporaryContainer {
    fn drop(&mut self) {
        // A drop cannot wait for the engine. What is not removed by then is swept at the next
        // start.
        tokio::spawn(remove(self.docker.clone(), std::mem::take(&mut self.name)));
    }
}

/// Copies the folder to `to`, which appears when all of it is there.
async fn copy_out(docker: &Docker, container: &str, image: &str, to: &Path) -> Result<(), String> {
    let parent = to.parent().unwrap_or(to).to_path_buf();
    let of_io = |error: io::Error| format!("{}: {error}", parent.display());
    tokio::fs::create_dir_all(&parent).await.map_err(of_io)?;
    let archive = parent.join("models.tar");
    download(docker, container, &archive)
        .await
        .map_err(|error| match refusal(&error) {
            Some(refused) if refused.is_missing() => format!("image {image} has no {MODELS}"),
            _ => chain(&error),
        })?;
    let target = to.to_path_buf();
    tokio::task::spawn_blocking(move || unpack(&archive, &target))
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(of_io)
}

async fn download(docker: &Docker, container: &str, archive: &Path) -> Result<(), EngineError> {
    let options = DownloadFromContainerOptionsBuilder::new()
        .path(MODELS)
        .build();
    let mut bytes = docker
        .download_from_container(container, Some(options))
        .boxed();
    let mut file = tokio::fs::File::create(archive).await?;
    while let Some(chunk) = bytes.try_next().await? {
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    Ok(())
}

/// Unpacks an archive of one folder to `to`, and removes it.
fn unpack(archive: &Path, to: &Path) -> io::Result<()> {
    let part = to.with_extension("part");
    safe_fs::remove(&part)?;
    let mut entries = tar::Archive::new(std::fs::File::open(archive)?);
    entries.set_preserve_ownerships(false);
    entries.unpack(&part)?;
    // The engine packs a folder under its own name.
    let name = PathBuf::from(MODELS.trim_start_matches('/'));
    std::fs::rename(part.join(name), to)?;
    std::fs::remove_dir_all(&part)?;
    std::fs::remove_file(archive)
}
