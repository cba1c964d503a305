//! The launcher inside a container: inputs from the store, the command, outputs to the store.
//!
//! It is told where the store is and which attempt it is by variables that the command does not
//! see. Everything that counts is in the store before it ends, so the pod may go at any moment
//! after that; until then its attempt is not done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ferroflow_artifacts::safe_fs;
use ferroflow_artifacts::stores::{S3Config, Stores};
use ferroflow_artifacts::transfer::{self, TransferError};
use ferroflow_types::error::chain;
use ferroflow_types::time::{Clock as _, SystemClock};
use ferroflow_types::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::cgroup;
use crate::remote::{RemoteError, RemoteFiles};
use crate::run::{LaunchMode, Prepared, launch_with};
use crate::runtime_endpoint::{RuntimeCallError, RuntimeEndpoint};
use crate::watchdog_channel::{WatchdogChannel, WatchdogMessage};
use crate::{
    AttemptFiles, AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, InputArtifact,
    Outcome, Outputs, record_stamps,
};

/// The variable with a [`PodTask`] as JSON.
pub const TASK: &str = "FERROFLOW_TASK";
/// The variable with the store's key name.
pub const ACCESS_KEY_ID: &str = "FERROFLOW_S3_ACCESS_KEY_ID";
/// The variable with the store's key.
pub const SECRET_ACCESS_KEY: &str = "FERROFLOW_S3_SECRET_ACCESS_KEY";

/// How long the store may take to say whether a pod that has to end was stopped.
const STOP_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a launcher in a pod is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodTask {
    /// Which attempt it is; a warm pod asks the runtime.
    pub key: Option<AttemptKey>,
    /// Where the files of attempts are.
    pub root: String,
    /// How S3 is reached; keys come apart, from a secret.
    #[serde(with = "ferroflow_types::unset::text")]
    pub endpoint: Option<String>,
    /// Its region.
    #[serde(with = "ferroflow_types::unset::text")]
    pub region: Option<String>,
    /// Seconds that the store may be away before the attempt is given up.
    pub patience_s: u64,
    /// A folder of the pod's own that both the command and we can write to.
    pub folder: PathBuf,
    /// The runtime that made the pod, if it can be reached from there.
    #[serde(default)]
    pub home: Option<RuntimeEndpoint>,
}

/// Why not even an outcome could be written.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The variables, or the specification, are missing or wrong.
    #[error("{0} does not say what to do")]
    Invalid(&'static str),
    /// The store.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The pod's own folder.
    #[error("the pod's folder")]
    Folder(#[from] std::io::Error),
    /// The runtime does not say which attempt it is.
    #[error("no attempt was given")]
    Runtime(#[from] RuntimeCallError),
}

impl PodError {
    /// Whether the store is away, and neither the command nor the settings are to blame.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Remote(error) if error.is_away())
    }
}

/// Does what the variables say.
///
/// # Errors
/// Only when not even an outcome could be written; the runtime then judges by the pod's end.
pub async fn run() -> Result<(), PodError> {
    let variable = |name| std::env::var(name).ok();
    let task: PodTask = variable(TASK)
        .and_then(|text| serde_json::from_str(&text).ok())
        .ok_or(PodError::Invalid(TASK))?;
    let secret = |name| {
        variable(name)
            .filter(|text| !text.is_empty())
            .map(Secret::from)
    };
    let stores = Stores::new(S3Config {
        endpoint: task.endpoint.clone(),
        region: task.region.clone(),
        access_key_id: secret(ACCESS_KEY_ID),
        secret_access_key: secret(SECRET_ACCESS_KEY),
    })
    .with_retry_timeout(Duration::from_secs(task.patience_s));
    let (key, mode) = match task.key {
        Some(key) => (key, LaunchMode::Container),
        None => match wait_for_attempt(task.home.as_ref()).await? {
            Some(key) => (key, LaunchMode::WarmContainer),
            None => return Ok(()),
        },
    };
    let remote = RemoteFiles::new(&stores, &task.root, &key)?;
    let started_at = SystemClock.now();
    let mut spec = remote
        .read_spec()
        .await?
        .ok_or(PodError::Invalid("spec.json"))?;
    if mode == LaunchMode::WarmContainer {
        let trace = spec.traceparent.clone();
        let trace = trace.map(|trace| ("TRACEPARENT".to_owned(), trace));
        let own = spec.kfp_retry_index().into_iter().chain(trace);
        // A pod of its own has these from its object. In front, so that declared variables win as
        // they do there.
        spec.env.splice(0..0, own);
    }
    let files = AttemptFiles::new(&task.folder);
    let mut result = run_attempt(&spec, &files, &remote, &stores, mode).await;
    // The log before the outcome: whoever sees an outcome finds everything.
    if files.log().exists()
        && let Err(error) = transfer::upload(&files.log(), &remote.log()).await
    {
        result = Err(transfer_failure("keep the log", &error));
    }
    write_outcome(&remote, started_at, result).await?;
    // Only a hint that saves the wait for the pod's end: the outcome is in the store.
    if let Some(runtime) = &task.home
        && let Err(error) = runtime.report().await
    {
        log_unreported(&error);
    }
    Ok(())
}

/// The attempt that a warm pod is for; `None` when it is told to end before there is one.
async fn wait_for_attempt(
    runtime: Option<&RuntimeEndpoint>,
) -> Result<Option<AttemptKey>, PodError> {
    let runtime = runtime.ok_or(PodError::Invalid("home"))?;
    let mut sigterm = signal(SignalKind::terminate())?;
    tokio::select! {
        key = runtime.take() => Ok(key?),
        _ = sigterm.recv() => Ok(None),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the pod's log is the only place for it"
)]
fn log_unreported(error: &RuntimeCallError) {
    let cause = ferroflow_types::error::chain(error);
    eprintln!("ferroflow-launcher: the end is not reported, it will be found out: {cause}");
}

async fn write_outcome(
    remote: &RemoteFiles,
    started_at: Timestamp,
    result: Result<Outcome, Failure>,
) -> Result<(), PodError> {
    let outcome = result.unwrap_or_else(|failure| Outcome {
        started_at,
        finished_at: SystemClock.now(),
        result: AttemptResult::Failed(failure),
    });
    remote.write_outcome(outcome).await?;
    Ok(())
}

fn transfer_failure(what: &str, error: &TransferError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    let message = format!("cannot {what}: {error}{}", cause.unwrap_or_default());
    Failure::new(reason(error.is_away()), message)
}

fn remote_failure(error: &RemoteError) -> Failure {
    Failure::new(reason(error.is_away()), chain(error))
}

/// A store that is away is not the task's fault.
fn reason(away: bool) -> FailureReason {
    if away {
        FailureReason::StoreAway
    } else {
        FailureReason::Transfer
    }
}

async fn run_attempt(
    spec: &AttemptSpec,
    files: &AttemptFiles,
    remote: &RemoteFiles,
    stores: &Stores,
    mode: LaunchMode,
) -> Result<Outcome, Failure> {
    let failed = |error: std::io::Error| Failure::of_io("cannot begin", &error);
    std::fs::create_dir_all(files.dir()).map_err(failed)?;
    files.write_spec(spec).map_err(failed)?;
    let started_at = SystemClock.now();
    if let Some(folder) = &spec.fetch_into {
        for input in &spec.inputs {
            fetch_into_shared(input, folder, &spec.key, stores).await?;
        }
        return Ok(Outcome {
            started_at,
            finished_at: SystemClock.now(),
            result: AttemptResult::Succeeded(Outputs::default()),
        });
    }
    // What is in images was copied or mounted before. Whether a missing input is an error is the
    // command's to say.
    for input in spec.inputs.iter().filter(|input| input.image().is_none()) {
        fetch(input, &input.path, stores).await?;
    }
    // Asked after the inputs, which may take long, and before the mark: from then on the command
    // counts as started.
    if remote
        .stop_requested()
        .await
        .map_err(|error| remote_failure(&error))?
    {
        return Err(Failure::new(
            FailureReason::Canceled,
            "it was stopped before it began",
        ));
    }
    if !remote
        .mark_started()
        .await
        .map_err(|error| remote_failure(&error))?
    {
        // This pod is another one for the attempt: nobody knows what the command did in the first.
        return Err(Failure::new(
            FailureReason::Lost,
            "its pod vanished while the command ran",
        ));
    }
    let oom_kills_before = cgroup::oom_kills();
    let mut outcome = run_command(files, remote, mode).await.map_err(failed)?;
    if cgroup::oom_kills() > oom_kills_before
        && let AttemptResult::Failed(failure) = &mut outcome.result
    {
        cgroup::mark_out_of_memory(failure, spec);
    }
    if let AttemptResult::Succeeded(outputs) = &mut outcome.result {
        upload_outputs(spec, stores).await?;
        record_stamps(stores, spec, outputs)
            .await
            .map_err(|error| transfer_failure("look at what was put into the store", &error))?;
    }
    Ok(outcome)
}

/// Fetches an input; whether it is there.
async fn fetch(input: &InputArtifact, to: &Path, stores: &Stores) -> Result<bool, Failure> {
    let fetched = transfer::fetch(stores, &input.uri, to, input.digest.as_deref()).await;
    fetched.map_err(|error| transfer_failure(&format!("fetch {}", input.uri), &error))
}

/// Brings an input to a folder that other attempts write to as well.
async fn fetch_into_shared(
    input: &InputArtifact,
    folder: &Path,
    key: &AttemptKey,
    stores: &Stores,
) -> Result<(), Failure> {
    let staged = |attempt: u32| folder.join(format!(".ferroflow-{}-{attempt}", key.item));
    let failed = |error: std::io::Error| Failure::of_io("cannot keep the content", &error);
    // Earlier attempts may have been killed while they fetched.
    for attempt in 1..=key.attempt {
        transfer::discard(&staged(attempt)).map_err(failed)?;
    }
    let staged = staged(key.attempt);
    let placed = async {
        if !fetch(input, &staged, stores).await? {
            return Err(input.missing_failure());
        }
        let inner = input.path.strip_prefix(folder).unwrap_or(&input.path);
        safe_fs::move_into(&staged, folder, inner).map_err(failed)
    };
    let placed = placed.await;
    if placed.is_err() {
        // The failure is told; what was fetched would only take space from the next attempt.
        let _left = transfer::discard(&staged).is_err();
    }
    placed
}

/// Runs the command; a pod that has to end ends it.
async fn run_command(
    files: &AttemptFiles,
    remote: &RemoteFiles,
    mode: LaunchMode,
) -> std::io::Result<Outcome> {
    let mut sigterm = signal(SignalKind::terminate())?;
    let channel = WatchdogChannel::new("its pod was told to end (a drained node, or an eviction)");
    let sender = channel.sender.clone();
    let dir = files.dir().to_path_buf();
    let mut work = tokio::task::spawn_blocking(move || {
        launch_with(&dir, mode, channel, Prepared::of(&dir)?, |_, r| r)
    });
    let ended = tokio::select! {
        ended = &mut work => ended,
        _ = sigterm.recv() => {
            // A store that is away must not cost the time that is left.
            let check = remote.stop_requested();
            let stop_requested = tokio::time::timeout(STOP_CHECK_TIMEOUT, check).await;
            if matches!(stop_requested, Ok(Ok(true))) {
                files.request_stop()?;
            }
            // A command that has ended meanwhile needs no message.
            let _ended = sender.send(WatchdogMessage::Terminate).is_err();
            work.await
        }
    };
    ended.map_err(std::io::Error::other)??;
    files
        .read_outcome()?
        .ok_or_else(|| std::io::Error::other("the launcher gave no report"))
}

/// Puts output artifacts where their URIs say.
async fn upload_outputs(spec: &AttemptSpec, stores: &Stores) -> Result<(), Failure> {
    for artifact in spec.outputs() {
        // Its URI is the path itself: there is no store that it could be put into.
        if Path::new(&artifact.uri) == artifact.path {
            continue;
        }
        let what = format!("put output artifact {}", artifact.name);
        let place = stores
            .open(&artifact.uri)
            .map_err(|error| transfer_failure(&what, &error.into()))?;
        transfer::upload(&artifact.path, &place)
            .await
            .map_err(|error| transfer_failure(&what, &error))?;
    }
    Ok(())
}

/// Copies the content of this container's image to `to`, where another container finds it.
pub fn copy_models(to: &Path) -> std::io::Result<()> {
    let from = Path::new(crate::MODELS);
    if !from.exists() {
        let message = format!("the image has no {}", from.display());
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, message));
    }
    ferroflow_artifacts::digest::copy(from, to)
}

/// Copies this program to `to`, so that another image's container can run it.
pub fn copy_self(to: &Path) -> std::io::Result<()> {
    std::fs::copy(std::env::current_exe()?, to).map(drop)
}
