//! Images: had already, or pulled with progress in the attempt's log.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::{CreateImageInfo, ImageConfig};
use bollard::query_parameters::CreateImageOptionsBuilder;
use ferroflow_launcher::{AttemptKey, AttemptSpec, Failure, FailureReason};
use futures::StreamExt as _;

use super::engine::{Backoff, refusal, with_retries};

/// When an image is pulled, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// Reads the policy.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "IfNotPresent" => Ok(Self::IfNotPresent),
            "Always" => Ok(Self::Always),
            "Never" => Ok(Self::Never),
            other => Err(format!("{other:?} is not Always, IfNotPresent or Never")),
        }
    }
}

/// Which image is wanted, and how.
pub(super) struct ImageRequest<'a> {
    pub(super) image: &'a str,
    pub(super) policy: PullPolicy,
    /// How long a registry that does not answer is tried.
    pub(super) timeout: Duration,
    /// Where progress is logged.
    pub(super) log: &'a Path,
}

/// The image's own settings, once it is here.
pub(super) async fn ensure(
    docker: &Docker,
    key: &AttemptKey,
    wanted: &ImageRequest<'_>,
) -> Result<ImageConfig, Failure> {
    let image = wanted.image;
    if wanted.policy != PullPolicy::Always
        && let Some(config) = inspect(docker, key, image).await?
    {
        return Ok(config);
    }
    if wanted.policy == PullPolicy::Never {
        return Err(pull_failure(
            image,
            "it is not on this machine, and the pull policy is Never",
        ));
    }
    pull(docker, key, wanted).await?;
    let pulled = inspect(docker, key, image).await?;
    pulled.ok_or_else(|| pull_failure(image, "it was pulled, and is not there"))
}

fn pull_failure(image: &str, why: &str) -> Failure {
    Failure::new(
        FailureReason::ImagePull,
        format!(
            "its image {image} cannot be had: {why}. Check its name; `docker pull {image}` with your \
             own login makes it present; docker.images maps it to another"
        ),
    )
}

/// The settings of an image that is here.
async fn inspect(
    docker: &Docker,
    key: &AttemptKey,
    image: &str,
) -> Result<Option<ImageConfig>, Failure> {
    match with_retries(key, || docker.inspect_image(image)).await {
        Ok(found) => Ok(Some(found.config.unwrap_or_default())),
        Err(refused) if refused.is_missing() => Ok(None),
        Err(refused) => Err(pull_failure(image, &refused.message)),
    }
}

/// Pulls until it is here, or until the registry's answer is final.
async fn pull(docker: &Docker, key: &AttemptKey, wanted: &ImageRequest<'_>) -> Result<(), Failure> {
    let image = wanted.image;
    let begun = Instant::now();
    let mut backoff = Backoff::new();
    append_log_line(wanted.log, &format!("pulling image {image}"));
    loop {
        let Err(error) = pull_once(docker, wanted).await else {
            let took = begun.elapsed().as_secs_f64();
            append_log_line(
                wanted.log,
                &format!("image {image} is here after {took:.1} s"),
            );
            return Ok(());
        };
        match registry_error(&error) {
            Some(why) if is_final(&why) || begun.elapsed() >= wanted.timeout => {
                return Err(pull_failure(image, &why));
            }
            // A registry is tried again within its timeout, an engine that is away without end.
            _ => backoff.wait(key, &error).await,
        }
    }
}

/// What the engine or the registry said; nothing when the engine is away.
fn registry_error(error: &EngineError) -> Option<String> {
    match error {
        EngineError::DockerStreamError { error } => Some(error.clone()),
        other => refusal(other).map(|refused| refused.message),
    }
}

/// Whether the registry would say the same for ever.
fn is_final(message: &str) -> bool {
    // A pull fails in the middle of a stream that began with status 200: its error is text only.
    const FINAL_ERRORS: [&str; 8] = [
        "not found",
        "manifest unknown",
        "denied",
        "unauthorized",
        "authentication required",
        "invalid reference",
        "no matching manifest",
        "does not exist",
    ];
    FINAL_ERRORS.iter().any(|text| message.contains(text))
}

async fn pull_once(docker: &Docker, wanted: &ImageRequest<'_>) -> Result<(), EngineError> {
    let options = CreateImageOptionsBuilder::new()
        .from_image(&with_tag(wanted.image))
        .build();
    let mut events = docker.create_image(Some(options), None, None);
    let mut progress = Progress::default();
    while let Some(event) = events.next().await {
        if let Some(line) = progress.update(event?) {
            append_log_line(
                wanted.log,
                &format!("pulling image {}: {line}", wanted.image),
            );
        }
    }
    Ok(())
}

/// Without a tag the engine would pull every one.
fn with_tag(image: &str) -> String {
    // Only the last part has a tag; a colon before it is that of the registry's port.
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// The layers of an image that is being pulled.
#[derive(Default)]
struct Progress {
    layers: HashMap<String, Layer>,
    reported_at: Option<Instant>,
}

#[derive(Default)]
struct Layer {
    bytes: i64,
    total: i64,
    done: bool,
}

impl Progress {
    const PERIOD: Duration = Duration::from_secs(3);

    /// Takes note of an event; a line for the log, now and then.
    fn update(&mut self, event: CreateImageInfo) -> Option<String> {
        let (id, status) = (event.id?, event.status?);
        let layer = self.layers.entry(id).or_default();
        match status.as_str() {
            "Downloading" => {
                let detail = event.progress_detail.unwrap_or_default();
                layer.bytes = detail.current.unwrap_or(layer.bytes);
                layer.total = detail.total.unwrap_or(layer.total);
            }
            "Download complete" | "Extracting" => layer.bytes = layer.total,
            "Pull complete" | "Already exists" => {
                layer.bytes = layer.total;
                layer.done = true;
            }
            // The engine announces the tag by an event like that of a layer.
            other if other.starts_with("Pulling from") => layer.done = true,
            _ => {}
        }
        let reported_at = *self.reported_at.get_or_insert_with(Instant::now);
        if reported_at.elapsed() < Self::PERIOD {
            return None;
        }
        self.reported_at = Some(Instant::now());
        Some(self.line())
    }

    fn line(&self) -> String {
        const MIB: i64 = 1024 * 1024;
        let sum = |of: fn(&Layer) -> i64| self.layers.values().map(of).sum::<i64>() / MIB;
        let done = self.layers.values().filter(|layer| layer.done).count();
        format!(
            "{} of {} MiB, {done} of {} layers",
            sum(|layer| layer.bytes),
            sum(|layer| layer.total),
            self.layers.len()
        )
    }
}

/// Puts a line of ours into the attempt's log.
fn append_log_line(log: &Path, line: &str) {
    let written = File::options()
        .create(true)
        .append(true)
        .open(log)
        .and_then(|mut log| writeln!(log, "ferroflow: {line}"));
    if let Err(error) = written {
        tracing::warn!(log = %log.display(), %error, "a log cannot be written");
    }
}

/// The command that is run: the component's own, or the image's where the component has none.
pub(super) fn argv(spec: &AttemptSpec, image: &ImageConfig) -> Result<Vec<String>, Failure> {
    // As in a pod: without a command the image's entry point is run, and arguments replace the
    // image's own.
    let mut argv = Vec::new();
    if spec.entry_point {
        argv.extend(image.entrypoint.iter().flatten().cloned());
    }
    if spec.argv.is_empty() {
        argv.extend(image.cmd.iter().flatten().cloned());
    } else {
        argv.extend(spec.argv.iter().cloned());
    }
    if argv.is_empty() {
        let message = format!(
            "neither the component nor its image {} says what to run: set a command",
            spec.image
        );
        return Err(Failure::new(FailureReason::StartFailed, message));
    }
    Ok(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_tag_is_pulled() {
        for (image, pulled) in [
            ("busybox", "busybox:latest"),
            ("host:5000/busybox", "host:5000/busybox:latest"),
            ("python:3.11", "python:3.11"),
            ("a/b@sha256:0", "a/b@sha256:0"),
        ] {
            assert_eq!(with_tag(image), pulled);
        }
    }

    #[test]
    fn progress_is_reported_in_layers_and_bytes() {
        let mut progress = Progress::default();
        let event = |id: &str, status: &str, bytes: i64| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(bollard::models::ProgressDetail {
                current: Some(bytes),
                total: Some(8 << 20),
            }),
            ..CreateImageInfo::default()
        };
        for event in [
            event("a", "Downloading", 2 << 20),
            event("b", "Downloading", 1 << 20),
            event("b", "Pull complete", 0),
        ] {
            assert_eq!(progress.update(event), None);
        }

        assert_eq!(progress.line(), "10 of 16 MiB, 1 of 2 layers");
    }

    #[test]
    fn a_registry_that_is_away_may_come_back() {
        assert!(is_final(
            "manifest for busybox:none not found: manifest unknown"
        ));
        assert!(is_final(
            "pull access denied for x, repository does not exist"
        ));
        assert!(!is_final("dial tcp: connection refused"));
    }
}
