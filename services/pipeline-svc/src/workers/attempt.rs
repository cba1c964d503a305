//! One attempt, from the engine's point of view to the runtime's and back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferroflow_artifacts::digest;
use ferroflow_launcher::kfp::{self, Kfp, OutputParameter, OutputSpec, ParameterKind};
use ferroflow_launcher::{
    AttemptKey, AttemptResult, AttemptSpec, Failure, FailureReason, InputArtifact, InputLink,
    Limits, Outcome, OutputArtifact, Resources, Workspace,
};
use ferroflow_pipeline_engine::engine::task::{TaskError, TaskIx};
use ferroflow_pipeline_engine::engine::{CacheAnswer, RunState};
use ferroflow_pipeline_engine::invocation::{self, AttemptPaths, InputLocation, Invocation};
use ferroflow_pipeline_engine::plan::{ParameterType, ResourceSpec, WorkspaceDecl};
use ferroflow_runtime::{Layout, Notes, Runtime, RuntimeError, Slot};
use ferroflow_types::error::chain;
use ferroflow_types::{Error, TaskId};
use tokio::sync::{mpsc, oneshot};

use crate::app::owner;

/// What an actor is told by its helpers.
#[derive(Debug)]
pub(crate) enum Message {
    /// A slot is taken; the command starts once the actor has stored that.
    SlotGranted(SlotGrant),
    /// The command has not begun: what it waits for, empty for nothing.
    NoteChanged {
        task: TaskId,
        attempt: u32,
        note: String,
    },
    /// The attempt has ended.
    AttemptEnded {
        task: TaskId,
        attempt: u32,
        outcome: Result<Outcome, RuntimeError>,
    },
    /// The cache has been asked.
    CacheAnswered {
        task: TaskId,
        answer: Result<CacheAnswer, Error>,
    },
    /// The wait before a retry is over.
    RetryDue { task: TaskId },
}

/// The key by which the runtime finds an attempt again.
pub(super) fn key(state: &RunState, ix: TaskIx, attempt: u32) -> AttemptKey {
    let facts = state.facts();
    AttemptKey {
        owner: owner(facts.run, &facts.namespace),
        item: state.task(ix).id.uuid(),
        attempt,
    }
}

/// The task and number that a key was made of.
fn task_and_attempt(key: &AttemptKey) -> (TaskId, u32) {
    (TaskId::new(key.item), key.attempt)
}

/// What the runtime is to do for an attempt.
pub(super) fn spec(
    runtime: &dyn Runtime,
    state: &RunState,
    ix: TaskIx,
    attempt: u32,
) -> Result<AttemptSpec, TaskError> {
    let key = key(state, ix, attempt);
    let layout = runtime.layout(&key);
    let places = places(&layout);
    let values = state.facts().values;
    let Invocation {
        image,
        argv,
        entry_point,
        env,
        parameters,
        artifacts,
        timeout,
        cpu_millis,
        memory_bytes,
        given,
        inputs,
        links,
        fetch_into,
        resources,
    } = invocation::build(state, ix, &places)?;
    let parameters = parameters
        .into_iter()
        .map(|(name, kind, path)| OutputParameter {
            name,
            kind: parameter_kind(kind),
            path: path.into(),
        });
    let (inputs, checked) = split_inputs(inputs);
    let local_inputs = checked.iter().map(|input| input.path.clone()).collect();
    let artifacts = artifacts.into_iter().map(|place| OutputArtifact {
        name: place.name,
        list: place.list,
        uri: place.uri,
        path: place.path.into(),
    });
    Ok(AttemptSpec {
        name: state.task_name(ix).to_owned(),
        image,
        argv,
        entry_point,
        env,
        limits: Limits {
            timeout_ms: timeout.and_then(|limit| u64::try_from(limit.as_millis()).ok()),
            cpu_millis,
            memory_bytes,
        },
        traceparent: ferroflow_service::telemetry::current_traceparent(),
        inputs,
        links: links.into_iter().map(link).collect(),
        fetch_into: fetch_into.map(PathBuf::from),
        local_inputs,
        checked,
        resources: resources_of(resources),
        workspace: state.plan().workspace.clone().map(workspace_of),
        kfp: Some(Kfp {
            outputs: OutputSpec {
                metadata_file: kfp::report_file(&layout.outputs_dir),
                parameters: parameters.collect(),
                artifacts: artifacts.collect(),
                values,
            },
            platform: state.platform(ix),
            arguments: given.into_iter().collect(),
        }),
        ..AttemptSpec::new(key, layout.working_dir)
    })
}

fn places(layout: &Layout) -> AttemptPaths {
    let copies = layout.copies_dir.as_ref();
    AttemptPaths {
        outputs_dir: layout.outputs_dir.display().to_string(),
        metadata_file: kfp::report_file(&layout.outputs_dir).display().to_string(),
        copies_dir: copies.map(|folder| folder.display().to_string()),
    }
}

/// Content that has to be brought, and content of this machine that is where it should be.
fn split_inputs(places: Vec<InputLocation>) -> (Vec<InputArtifact>, Vec<InputArtifact>) {
    let inputs = places.into_iter().map(|place| InputArtifact {
        uri: place.uri,
        path: place.path.into(),
        digest: place.digest,
        stamp: place.stamp,
    });
    inputs.partition(|input| digest::local_path(&input.uri).is_none_or(|found| found != input.path))
}

fn workspace_of(wanted: WorkspaceDecl) -> Workspace {
    let WorkspaceDecl {
        size,
        access_modes,
        storage_class,
    } = wanted;
    Workspace {
        size,
        access_modes,
        storage_class,
    }
}

fn link((path, target): (String, String)) -> InputLink {
    let (path, target) = (path.into(), target.into());
    InputLink { path, target }
}

fn resources_of(written: ResourceSpec) -> Resources {
    let ResourceSpec {
        cpu_limit,
        memory_limit,
        cpu_request,
        memory_request,
        accelerator,
    } = written;
    let list = |cpu: Option<String>, memory: Option<String>| {
        let named = [("cpu", cpu), ("memory", memory)].into_iter();
        named.filter_map(|(name, amount)| Some((name.to_owned(), amount?)))
    };
    Resources {
        requests: list(cpu_request, memory_request).collect(),
        limits: list(cpu_limit, memory_limit).chain(accelerator).collect(),
    }
}

fn parameter_kind(kind: ParameterType) -> ParameterKind {
    match kind {
        ParameterType::Double => ParameterKind::Double,
        ParameterType::Integer => ParameterKind::Integer,
        ParameterType::String => ParameterKind::String,
        ParameterType::Boolean => ParameterKind::Boolean,
        ParameterType::List => ParameterKind::List,
        ParameterType::Struct | ParameterType::TaskFinalStatus | ParameterType::TaskConfig => {
            ParameterKind::Struct
        }
    }
}

/// The wait before a store that is away is asked again. Its client has retried for a while by then, so a
/// shorter wait would only add load to a store that comes back.
const STORE_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Asks until it is known how the attempt ended. That a store is away says nothing of the command, which
/// may run on, so the attempt is not given up.
async fn poll_outcome<F>(
    key: &AttemptKey,
    notes: Option<&Notes>,
    ask: impl Fn() -> F,
) -> Result<Outcome, RuntimeError>
where
    F: Future<Output = Result<Outcome, RuntimeError>>,
{
    loop {
        match ask().await {
            Err(error @ RuntimeError::Unavailable { .. }) => {
                if let Some(notes) = notes {
                    notes.set(key, Some("the object store cannot be reached now"));
                }
                tracing::warn!(%key, error = chain(&error), wait = ?STORE_RETRY_INTERVAL, "an attempt cannot be asked after now, trying again");
                tokio::time::sleep(STORE_RETRY_INTERVAL).await;
            }
            known => return known,
        }
    }
}

/// How long a note has to last before it is sent; each one is a transaction.
const NOTE_DEBOUNCE: Duration = Duration::from_secs(1);

/// Sends the actor the notes of an attempt while it waits; `last_note` is the one that is stored.
/// Ends with the attempt.
async fn forward_notes(
    notes: &Notes,
    key: &AttemptKey,
    mut last_note: String,
    mailbox: &mpsc::Sender<Message>,
) -> std::convert::Infallible {
    let (task, attempt) = task_and_attempt(key);
    let mut note_changes = notes.subscribe(key);
    loop {
        tokio::time::sleep(NOTE_DEBOUNCE).await;
        let note = note_changes.borrow_and_update().clone().unwrap_or_default();
        if note != last_note {
            last_note.clone_from(&note);
            let message = Message::NoteChanged {
                task,
                attempt,
                note,
            };
            send_to_actor(mailbox, message).await;
        }
        // The sender is dropped with the runtime only, and then nothing more is said.
        if note_changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// An attempt that is to run.
pub(super) struct Launch {
    pub(super) spec: AttemptSpec,
    /// None when it has to wait for one.
    pub(super) slot: Option<Slot>,
    /// What is stored of what it waits for; another actor may have been told so.
    pub(super) note: String,
}

/// An attempt that waited for a slot and has one.
#[derive(Debug)]
pub(crate) struct SlotGrant {
    pub(super) task: TaskId,
    pub(super) attempt: u32,
    /// Sent once the grant is stored, and the command starts; dropped if it must not start.
    pub(super) start: oneshot::Sender<()>,
}

/// Waits for a slot, runs the attempt, tells its end.
pub(super) async fn watch(
    runtime: Arc<dyn Runtime>,
    launch: Launch,
    mailbox: mpsc::Sender<Message>,
) {
    let Launch { spec, slot, note } = launch;
    let (task, attempt) = task_and_attempt(&spec.key);
    let slot = if let Some(slot) = slot {
        slot
    } else {
        let slot = runtime.slots().take().await;
        // The command must not begin before its task is stored as RUNNING: a task that still waits is
        // cancelled without stopping anything.
        let (start, start_signal) = oneshot::channel();
        let grant = SlotGrant {
            task,
            attempt,
            start,
        };
        send_to_actor(&mailbox, Message::SlotGranted(grant)).await;
        if start_signal.await.is_err() {
            // It was cancelled while it waited.
            return;
        }
        slot
    };
    let key = spec.key.clone();
    let notes = runtime.notes();
    let ended = poll_outcome(&key, Some(notes), || async {
        // `ensure` is repeated as well: it starts nothing a second time, and preparations that failed
        // while the store was away have to begin anew.
        runtime.ensure(spec.clone()).await?;
        runtime.observe(&key).await
    });
    let outcome = tokio::select! {
        // A note that is set before `forward_notes` subscribes is not seen, and `ensure` may set one
        // at once: `biased` polls `forward_notes` first.
        biased;
        never = forward_notes(notes, &key, note, &mailbox) => match never {},
        outcome = ended => outcome,
    };
    // First, so that the next command does not wait until this run has read the message.
    drop(slot);
    report_outcome(&mailbox, &key, outcome).await;
}

/// Stops an attempt and tells its end, whether or not somebody else watches it.
pub(super) async fn stop(
    runtime: Arc<dyn Runtime>,
    key: AttemptKey,
    mailbox: mpsc::Sender<Message>,
) {
    let outcome = poll_outcome(&key, None, || async {
        runtime.stop(&key).await?;
        runtime.observe(&key).await
    })
    .await;
    report_outcome(&mailbox, &key, outcome).await;
}

async fn report_outcome(
    mailbox: &mpsc::Sender<Message>,
    key: &AttemptKey,
    outcome: Result<Outcome, RuntimeError>,
) {
    let (task, attempt) = task_and_attempt(key);
    let message = Message::AttemptEnded {
        task,
        attempt,
        outcome,
    };
    send_to_actor(mailbox, message).await;
}

/// Sends a message. An actor that has stopped reads the outcome from the runtime at its next start, so a
/// message to it may be lost.
pub(super) async fn send_to_actor(mailbox: &mpsc::Sender<Message>, message: Message) {
    if mailbox.send(message).await.is_err() {
        tracing::debug!("the actor is gone, the outcome is found at the next start");
    }
}

/// The result of an attempt in the engine's words.
pub(super) fn result_of(
    outcome: Result<Outcome, RuntimeError>,
) -> Result<ferroflow_launcher::Outputs, Failure> {
    match outcome {
        Ok(outcome) => match outcome.result {
            AttemptResult::Succeeded(outputs) => Ok(outputs),
            AttemptResult::Failed(failure) => Err(failure),
        },
        // Nobody knows how it ended. The engine makes a lost attempt anew, and does
        // not count that as a retry.
        Err(error @ RuntimeError::Unknown(_)) => {
            Err(Failure::new(FailureReason::Lost, error.to_string()))
        }
        Err(error) => Err(Failure::new(FailureReason::StartFailed, chain(&error))),
    }
}

/// The error of a failed attempt.
pub(super) fn error_of(failure: Failure) -> TaskError {
    let Failure {
        reason,
        message,
        exit_code,
        log_tail,
    } = failure;
    TaskError {
        reason: reason.as_str().to_owned(),
        message,
        exit_code,
        log_tail,
    }
}
