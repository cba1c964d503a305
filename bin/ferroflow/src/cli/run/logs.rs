//! `ferroflow run logs`: of one task or of all, until the run ends if that is wanted.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Color, Style};
use anyhow::bail;
use ferroflow_proto::pipelines::v1::{StreamLogsRequest, Task, TaskState};
use tokio::task::JoinSet;
use tonic::Code;

use super::{fetch, has_ended, run_until_interrupted, state, tasks};
use crate::cli::follow::{RunEvents, number, text};
use crate::cli::log_text::{Controls, LineFormatter, Printer};
use crate::cli::output::{note, paint, status_error};
use crate::cli::{Channel, clients, find};

/// Between two looks for a log that is not there yet.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// The run: an id, the first characters of one, a name, or @last.
    run: String,
    /// Only this task: its name, its path, or its id.
    task: Option<String>,
    /// Go on until the run ends, with every task that begins meanwhile.
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines of each task's log.
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// This attempt of each task, from 1 [default: the latest].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..))]
    attempt: Option<i32>,
    /// Everything that was printed, with the messages of the SDK's bootstrap.
    #[arg(long)]
    raw: bool,
}

/// One attempt of a task, whose log is shown.
#[derive(Debug, Clone)]
struct AttemptLog {
    task_id: String,
    path: String,
    /// 0 for the log of the task whose result was reused.
    attempt: i32,
}

/// How logs are shown.
#[derive(Clone)]
struct Reader {
    channel: Channel,
    run_id: String,
    tail: Option<usize>,
    raw: bool,
    prefixed: bool,
}

pub(super) async fn run(channel: Channel, logs: Logs) -> anyhow::Result<ExitCode> {
    let run_id = find::run(&channel, &logs.run).await?;
    let all = tasks(channel.clone(), &run_id).await?;
    let selected = select_logs(&all, &logs, &run_id, false)?;
    let reader = Reader {
        channel: channel.clone(),
        run_id: run_id.clone(),
        tail: logs.tail,
        raw: logs.raw,
        prefixed: logs.task.is_none() || selected.len() > 1,
    };
    if logs.follow {
        let following = follow(reader, all, selected, logs);
        return run_until_interrupted(following, &run_id).await;
    }
    if selected.is_empty() {
        let ended = has_ended(&fetch(channel, &run_id).await?);
        match (logs.attempt, ended) {
            (Some(attempt), _) => bail!("no task of run {run_id} has had an attempt {attempt}"),
            (None, true) => {
                note(
                    "no command of this run was started: results were reused, or it failed before",
                );
            }
            (None, false) => {
                note("no command of this run has started yet: --follow waits for them");
            }
        }
    }
    for (at, attempt_log) in selected.iter().enumerate() {
        reader.show(attempt_log, at, false).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The attempts that are asked for, in the order in which they began.
///
/// # Errors
/// When no task has the name, unless it is waited for.
fn select_logs(
    all: &[Task],
    logs: &Logs,
    run_id: &str,
    is_over: bool,
) -> anyhow::Result<Vec<AttemptLog>> {
    let mut matching: Vec<_> = all.iter().filter(|task| is_named(task, logs)).collect();
    if matching.is_empty()
        && let Some(name) = &logs.task
        && (!logs.follow || is_over)
    {
        bail!("run {run_id} has no task {name}: see `ferroflow run get {run_id}`")
    }
    matching.sort_by_key(|task| {
        let at = task.started_at.as_ref();
        at.map_or((i64::MAX, 0), |at| (at.seconds, at.nanos))
    });
    let only = matching.len() == 1 && logs.task.is_some();
    let shown = matching.into_iter().filter_map(|task| {
        let is_reused = task.state() == TaskState::Cached && only;
        // One that waits for a slot has a number and no log yet: an event tells when it begins.
        let is_latest = logs.attempt.is_none_or(|attempt| attempt == task.attempt);
        if logs.follow && is_latest && task.state() == TaskState::Pending {
            return None;
        }
        let attempt = match logs.attempt {
            Some(attempt) if attempt <= task.attempt => attempt,
            None if task.attempt > 0 || is_reused => task.attempt,
            _ => return None,
        };
        Some(AttemptLog {
            task_id: task.task_id.clone(),
            path: task.path.clone(),
            attempt,
        })
    });
    Ok(shown.collect())
}

fn is_named(task: &Task, logs: &Logs) -> bool {
    let Some(name) = &logs.task else {
        return true;
    };
    let below_root = task.path.trim_start_matches("root.");
    *name == task.task_id
        || *name == task.path
        || *name == below_root
        || *name == task.name
        || *name == task.display_name
}

/// Shows logs as they come, until the run has ended and every log with it.
async fn follow(
    reader: Reader,
    all: Vec<Task>,
    selected: Vec<AttemptLog>,
    logs: Logs,
) -> anyhow::Result<ExitCode> {
    // An attempt may be in the first list, in an event and in the last list; it is shown once.
    let mut shown: HashSet<(String, i32)> = HashSet::new();
    let mut readers = JoinSet::new();
    let mut show = |attempt_log: AttemptLog, readers: &mut JoinSet<anyhow::Result<()>>| {
        if shown.insert((attempt_log.task_id.clone(), attempt_log.attempt)) {
            let (reader, at) = (reader.clone(), shown.len() - 1);
            readers.spawn(async move { reader.show(&attempt_log, at, true).await });
        }
    };
    for attempt_log in selected {
        show(attempt_log, &mut readers);
    }
    let mut events = RunEvents::new(&reader.channel, &reader.run_id);
    let mut run = fetch(reader.channel.clone(), &reader.run_id).await?;
    while !has_ended(&run) {
        let event = tokio::select! {
            event = events.next() => event?,
            // A log that cannot be read ends the command, instead of being left out.
            Some(done) = readers.join_next() => {
                done??;
                continue;
            }
        };
        match event.r#type.trim_start_matches("ai.ferroflow.") {
            "task.started" => {
                if let Some(attempt_log) = started_attempt(&event, &all, &logs) {
                    show(attempt_log, &mut readers);
                }
            }
            "run.succeeded" | "run.failed" | "run.canceled" => {
                run = fetch(reader.channel.clone(), &reader.run_id).await?;
            }
            _ => {}
        }
    }
    // What began and ended while the events were on their way.
    let last = tasks(reader.channel.clone(), &reader.run_id).await?;
    for attempt_log in select_logs(&last, &logs, &reader.run_id, true)? {
        show(attempt_log, &mut readers);
    }
    while let Some(done) = readers.join_next().await {
        done??;
    }
    note(&format!("run {} {}", reader.run_id, state(&run)));
    Ok(ExitCode::SUCCESS)
}

/// The attempt that an event tells of, if it is to be shown.
fn started_attempt(
    event: &ferroflow_proto::events::v1::Event,
    all: &[Task],
    logs: &Logs,
) -> Option<AttemptLog> {
    let (task_id, path, attempt) = (
        text(event, "task_id"),
        text(event, "path"),
        number(event, "attempt"),
    );
    // Events begin with the oldest one: attempts that were over are not shown again.
    let is_old = all
        .iter()
        .any(|task| task.task_id == task_id && attempt < task.attempt);
    let is_named = match &logs.task {
        Some(name) => {
            let of_event = text(event, "name");
            [&task_id, &path, &of_event].contains(&name) || path.trim_start_matches("root.") == name
        }
        None => true,
    };
    let is_asked = logs.attempt.is_none_or(|wanted| wanted == attempt);
    (attempt > 0 && !is_old && is_named && is_asked).then_some(AttemptLog {
        task_id,
        path,
        attempt,
    })
}

impl Reader {
    /// Shows the log of one attempt; with `follow` to its end.
    async fn show(&self, attempt_log: &AttemptLog, at: usize, follow: bool) -> anyhow::Result<()> {
        let lines = LineFormatter::new(
            self.prefix(attempt_log, at),
            self.raw,
            Controls::of_stdout(),
        );
        let mut printer = Printer::new(lines, self.tail);
        let mut offset = 0;
        // What is there already comes first, so that its last lines are known.
        let passes: &[bool] = match (follow, self.tail) {
            (true, Some(_)) => &[false, true],
            (true, None) => &[true],
            (false, _) => &[false],
        };
        for (pass, follow) in passes.iter().enumerate() {
            if pass > 0 {
                printer.flush_tail()?;
            }
            self.read(attempt_log, *follow, &mut offset, &mut printer)
                .await?;
        }
        printer.finish()
    }

    fn prefix(&self, attempt_log: &AttemptLog, at: usize) -> String {
        if !self.prefixed {
            return String::new();
        }
        let colours = [
            AnsiColor::Cyan,
            AnsiColor::Yellow,
            AnsiColor::Green,
            AnsiColor::Magenta,
            AnsiColor::Blue,
        ];
        let style = Style::new().fg_color(Some(Color::Ansi(colours[at % colours.len()])));
        let place = attempt_log.path.trim_start_matches("root.");
        let name = match attempt_log.attempt {
            attempt @ 2.. => format!("[{place} #{attempt}]"),
            _ => format!("[{place}]"),
        };
        format!("{} ", paint(&name, style))
    }

    /// Reads from `offset` on, which is moved to where the log ended.
    async fn read(
        &self,
        attempt_log: &AttemptLog,
        follow: bool,
        offset: &mut i64,
        printer: &mut Printer,
    ) -> anyhow::Result<()> {
        let mut client = clients::tasks(&self.channel);
        loop {
            let request = StreamLogsRequest {
                run_id: self.run_id.clone(),
                task_id: attempt_log.task_id.clone(),
                attempt: attempt_log.attempt,
                follow,
                offset: *offset,
            };
            let mut stream = match client.stream_logs(request).await {
                Ok(stream) => stream.into_inner(),
                Err(status) if status.code() == Code::NotFound => {
                    // What comes before the command (an image, an environment) takes its time.
                    if follow && self.is_under_way(attempt_log).await? {
                        tokio::time::sleep(POLL_INTERVAL).await;
                        continue;
                    }
                    return Ok(());
                }
                Err(status) => return Err(status_error(status)),
            };
            loop {
                match stream.message().await {
                    Ok(Some(piece)) => {
                        *offset += i64::try_from(piece.data.len()).unwrap_or(i64::MAX);
                        printer.print(&piece.data)?;
                    }
                    Ok(None) => return Ok(()),
                    // A platform that is started again goes on where it was.
                    Err(status) if follow && self.wait_until_available(&status).await => break,
                    Err(status) => return Err(status_error(status)),
                }
            }
        }
    }

    async fn is_under_way(&self, attempt_log: &AttemptLog) -> anyhow::Result<bool> {
        let all = tasks(self.channel.clone(), &self.run_id).await?;
        let task = all.iter().find(|task| task.task_id == attempt_log.task_id);
        Ok(task.is_some_and(|task| {
            task.attempt == attempt_log.attempt && task.state() == TaskState::Running
        }))
    }

    /// Whether a platform that is away answers again within a while.
    async fn wait_until_available(&self, status: &tonic::Status) -> bool {
        if !matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
        ) {
            return false;
        }
        // A minute in all, as for events (`follow`).
        for _ in 0..200 {
            if fetch(self.channel.clone(), &self.run_id).await.is_ok() {
                return true;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, state: TaskState, attempt: i32) -> Task {
        Task {
            task_id: name.to_owned(),
            name: name.to_owned(),
            path: format!("root.{name}"),
            state: state.into(),
            attempt,
            ..Task::default()
        }
    }

    fn shown(follow: bool, attempt: Option<i32>) -> Vec<(String, i32)> {
        let all = [
            task("done", TaskState::Succeeded, 1),
            task("waits", TaskState::Pending, 1),
            task("retried", TaskState::Pending, 2),
            task("not-reached", TaskState::Pending, 0),
            task("works", TaskState::Running, 2),
        ];
        let logs = Logs {
            run: "r".to_owned(),
            task: None,
            follow,
            tail: None,
            attempt,
            raw: false,
        };
        let selected = select_logs(&all, &logs, "r", false).unwrap().into_iter();
        selected
            .map(|shown| (shown.task_id, shown.attempt))
            .collect()
    }

    #[test]
    fn who_waits_for_a_slot_is_followed_once_it_has_begun() {
        let of = |list: &[(&str, i32)]| -> Vec<_> {
            let list = list.iter();
            list.map(|(name, attempt)| ((*name).to_owned(), *attempt))
                .collect()
        };
        assert_eq!(shown(true, None), of(&[("done", 1), ("works", 2)]));
        // The attempt before has a log.
        assert_eq!(
            shown(true, Some(1)),
            of(&[("done", 1), ("retried", 1), ("works", 1)])
        );
        assert_eq!(
            shown(false, None),
            of(&[("done", 1), ("waits", 1), ("retried", 2), ("works", 2)])
        );
    }
}
