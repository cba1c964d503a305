//! `ferroflow run`.

mod get;
mod list;
mod logs;
pub(super) mod submit;

use std::process::ExitCode;

use anyhow::bail;
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::pipelines::v1::{ListTasksRequest, Task};

pub(super) use get::in_order;

use super::output::{line, note, status_error};
use super::{Channel, Global, clients, connect, find, watch};

const PACKAGE: &str = "kubeflow.pipelines.backend.api.v2beta1";

/// The exit code of a command that was interrupted, as shells have it: 128 and SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

pub(super) const EXAMPLES: &str = "\
RUN is a run's id, the first characters of one, its name, or @last for the newest run.

Examples:
  ferroflow run submit pipeline.yaml --param epochs=5 --wait
  ferroflow run submit pipeline.py --experiment digits
  ferroflow run submit --pipeline training --version v2
  ferroflow run list --state failed --limit 5
  ferroflow run get @last
  ferroflow run logs @last --follow";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a compiled pipeline, a Python file's, or an uploaded one.
    Submit(Box<submit::Submit>),
    /// List runs, newest first.
    List(list::List),
    /// Show a run: its tasks in the order they ran, parameters, metrics, outputs, the cause of a
    /// failure.
    Get {
        /// The run: an id, the first characters of one, a name, or @last.
        run: String,
    },
    /// Print what a run's commands printed.
    Logs(logs::Logs),
    /// Wait until a run ends; exits with 0 if it succeeded, 1 if it failed, 3 if it was canceled.
    Wait {
        /// The run: an id, the first characters of one, a name, or @last.
        run: String,
    },
    /// Stop a run.
    Cancel {
        /// The run: an id, the first characters of one, a name, or @last.
        run: String,
    },
    /// Run again what failed, keep what succeeded.
    Retry {
        /// The run: an id, the first characters of one, a name, or @last.
        run: String,
        /// Wait until it ends, showing its tasks.
        #[arg(long)]
        wait: bool,
    },
    /// Put a run away: lists leave it out unless asked.
    Archive {
        /// The run: an id, the first characters of one, a name, or @last.
        run: String,
    },
    /// Bring a run back that was put away.
    Unarchive {
        /// The run: an id, the first characters of one, a name, or @last.
        run: String,
    },
    /// Delete a run and its logs; artifacts stay.
    Delete {
        /// The run: an id, the first characters of one, a name, or @last.
        run: String,
        /// Also one that is under way: it is stopped.
        #[arg(long)]
        force: bool,
    },
}

pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    // A file that cannot be read is told before a platform that cannot be reached.
    let command = match command {
        Command::Submit(submit) => return submit::run(*submit, global).await,
        other => other,
    };
    let channel = connect(global).await?;
    match command {
        Command::Submit(_) => {}
        Command::List(list) => list::run(channel, list, global).await?,
        Command::Get { run } => {
            let run_id = find::run(&channel, &run).await?;
            get::run(channel, run_id, global).await?;
        }
        Command::Logs(logs) => return logs::run(channel, logs).await,
        Command::Wait { run } => {
            let run_id = find::run(&channel, &run).await?;
            return wait(channel, run_id, global).await;
        }
        Command::Retry { run, wait } => {
            let run_id = find::run(&channel, &run).await?;
            change(channel.clone(), Change::Retry, &run_id).await?;
            if wait {
                return self::wait(channel, run_id, global).await;
            }
        }
        Command::Cancel { run } => {
            let run_id = find::run(&channel, &run).await?;
            change(channel, Change::Cancel, &run_id).await?;
        }
        Command::Archive { run } => {
            let run_id = find::run(&channel, &run).await?;
            change(channel, Change::Archive, &run_id).await?;
        }
        Command::Unarchive { run } => {
            let run_id = find::run(&channel, &run).await?;
            change(channel, Change::Unarchive, &run_id).await?;
        }
        Command::Delete { run, force } => {
            let run_id = find::run(&channel, &run).await?;
            if !force {
                check_ended(channel.clone(), &run_id).await?;
            }
            change(channel, Change::Delete, &run_id).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses to delete what is under way.
async fn check_ended(channel: Channel, run_id: &str) -> anyhow::Result<()> {
    let run = fetch(channel, run_id).await?;
    if has_ended(&run) {
        return Ok(());
    }
    let (name, state) = (&run.display_name, state(&run));
    bail!(
        "run {run_id} ({name}) is {state}: stop it first (ferroflow run cancel {run_id}), or delete it all the same with --force"
    )
}

/// What is done to a run as a whole.
enum Change {
    Cancel,
    Retry,
    Archive,
    Unarchive,
    Delete,
}

async fn change(channel: Channel, change: Change, run_id: &str) -> anyhow::Result<()> {
    let mut client = clients::runs(&channel);
    let run_id = run_id.to_owned();
    let subject = format!("run {run_id}");
    macro_rules! call {
        ($rpc:ident, $request:ident) => {{
            let request = pb::$request {
                run_id,
                ..Default::default()
            };
            client.$rpc(request).await.map_err(status_error)?;
        }};
    }
    let outcome = match change {
        Change::Cancel => {
            call!(terminate_run, TerminateRunRequest);
            "is being canceled"
        }
        Change::Retry => {
            call!(retry_run, RetryRunRequest);
            "is being retried"
        }
        Change::Archive => {
            call!(archive_run, ArchiveRunRequest);
            "is archived"
        }
        Change::Unarchive => {
            call!(unarchive_run, UnarchiveRunRequest);
            "is unarchived"
        }
        Change::Delete => {
            call!(delete_run, DeleteRunRequest);
            "is deleted"
        }
    };
    line(&format!("{subject} {outcome}"));
    Ok(())
}

/// Waits for a run; Ctrl-C ends the waiting, not the run.
async fn wait(channel: Channel, run_id: String, global: &Global) -> anyhow::Result<ExitCode> {
    let waiting = watch::wait(channel, run_id.clone(), global.output);
    run_until_interrupted(waiting, &run_id).await
}

/// What `work` gives, unless somebody presses Ctrl-C.
async fn run_until_interrupted(
    work: impl Future<Output = anyhow::Result<ExitCode>>,
    run_id: &str,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        result = work => result,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            note(&format!(
                "\nrun {run_id} goes on\n  come back:  ferroflow run wait {run_id}\n  \
                 logs:       ferroflow run logs {run_id} --follow\n  \
                 stop it:    ferroflow run cancel {run_id}"
            ));
            Ok(ExitCode::from(EXIT_INTERRUPTED))
        }
    }
}

/// What a run's state is called: one that failed because it was cancelled is canceled.
pub(super) fn state(run: &pb::Run) -> &'static str {
    match (
        run.state(),
        run.error.as_ref().map_or(0, |error| error.code),
    ) {
        // KFP has FAILED for a run that was cancelled; the code is CANCELLED (google.rpc.Code).
        (pb::RuntimeState::Failed, 1) => "canceled",
        (pb::RuntimeState::Pending, _) => "pending",
        (pb::RuntimeState::Running, _) => "running",
        (pb::RuntimeState::Succeeded, _) => "succeeded",
        (pb::RuntimeState::Failed, _) => "failed",
        (pb::RuntimeState::Canceling, _) => "canceling",
        _ => "unknown",
    }
}

/// Whether nothing more happens to a run, short of a retry.
pub(super) fn has_ended(run: &pb::Run) -> bool {
    matches!(state(run), "succeeded" | "failed" | "canceled")
}

pub(super) async fn tasks(channel: Channel, run_id: &str) -> anyhow::Result<Vec<Task>> {
    let mut client = clients::tasks(&channel);
    let request = ListTasksRequest {
        run_id: run_id.to_owned(),
    };
    let listed = client.list_tasks(request).await.map_err(status_error)?;
    Ok(listed.into_inner().tasks)
}

pub(super) async fn fetch(channel: Channel, run_id: &str) -> anyhow::Result<pb::Run> {
    let mut client = clients::runs(&channel);
    let request = pb::GetRunRequest {
        run_id: run_id.to_owned(),
        ..Default::default()
    };
    Ok(client
        .get_run(request)
        .await
        .map_err(status_error)?
        .into_inner())
}
