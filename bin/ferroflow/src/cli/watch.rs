//! Watching a run: a live picture of its tasks on a terminal, plain lines elsewhere.
//!
//! Nothing is polled: what is shown follows the run's events.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use ferroflow_proto::events::v1::Event;
use ferroflow_proto::kfp::v2beta1::{Run, RuntimeState, RuntimeStatus};
use ferroflow_proto::pipelines::v1::{Task, TaskState, TaskType};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use prost_types::Timestamp;

use super::follow::{RunEvents, text};
use super::log_text::filter_log;
use super::output::{duration, json, json_of, line, note, paint, style_of};
use super::run::{fetch, has_ended, in_order, state, tasks};
use super::{Channel, Format, remarks};

/// Tasks that are shown at once; more scroll away above.
const LINES_MAX: usize = 20;

/// What a task's state is called.
pub(super) fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Unspecified => "unknown",
        TaskState::Pending => "pending",
        TaskState::Running => "running",
        TaskState::Succeeded => "succeeded",
        TaskState::Cached => "cached",
        TaskState::Skipped => "skipped",
        TaskState::Failed => "failed",
        TaskState::Canceled => "canceled",
    }
}

/// Waits until the run ends, showing what happens.
pub(super) async fn wait(
    channel: Channel,
    run_id: String,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let run = fetch(channel.clone(), &run_id).await?;
    let mut events = RunEvents::new(&channel, &run_id);
    let quiet = format == Format::Json;
    let mut display = ProgressDisplay::new(quiet);
    let mut ended = has_ended(&run);
    // Events begin with the oldest one: of a run that was retried, what came before is past.
    let retried = retried_at(&run);
    let mut is_past = retried.is_some();
    if ended && !quiet {
        // It ended before it could be watched, for example because every result was reused.
        for text in outcomes(&in_order(tasks(channel.clone(), &run_id).await?)) {
            note(&text);
        }
    }
    while !ended {
        let event = events.next().await?;
        let kind = event.r#type.trim_start_matches("ai.ferroflow.").to_owned();
        match kind.split_once('.') {
            Some(("task", verb)) if !is_past => display.task(verb, &event),
            Some(("run", "retried")) => {
                let at = event.time.as_ref().map_or(0, |at| at.seconds);
                is_past &= retried.is_some_and(|retried| at < retried);
            }
            Some(("run", "succeeded" | "failed" | "canceled")) => {
                // An older end is not the end of a run that was retried since.
                ended = has_ended(&fetch(channel.clone(), &run_id).await?);
            }
            _ => {}
        }
    }
    drop(display);
    let run = fetch(channel.clone(), &run_id).await?;
    report(channel, &run, format).await
}

/// What became of the tasks that run something, one a line.
fn outcomes(tasks: &[Task]) -> Vec<String> {
    let runs = |task: &&Task| matches!(task.r#type(), TaskType::Container | TaskType::Importer);
    let line = |task: &Task| {
        let place = task.path.trim_start_matches("root.");
        let took = duration(task.started_at.as_ref(), task.finished_at.as_ref());
        format!("{:10} {place} {took}", state_name(task.state()))
            .trim_end()
            .to_owned()
    };
    tasks.iter().filter(runs).map(line).collect()
}

/// When a run began again, in whole seconds, as its history has it.
fn retried_at(run: &Run) -> Option<i64> {
    let is_end = |status: &RuntimeStatus| {
        use RuntimeState::{Canceled, Failed, Succeeded};
        matches!(status.state(), Succeeded | Failed | Canceled)
    };
    let last_end = run.state_history.iter().rposition(is_end)?;
    let retry = run.state_history.get(last_end + 1)?;
    retry.update_time.as_ref().map(|at| at.seconds)
}

async fn report(channel: Channel, run: &Run, format: Format) -> anyhow::Result<ExitCode> {
    // The exit codes that the help of `run wait` promises.
    let (outcome, code) = match state(run) {
        "succeeded" => ("succeeded", 0),
        "canceled" => ("canceled", 3),
        other => (other, 1),
    };
    if format == Format::Json {
        let name = "kubeflow.pipelines.backend.api.v2beta1.Run";
        json(&json_of(name, run)?)?;
        return Ok(ExitCode::from(code));
    }
    if code == 1 {
        for text in failures(&tasks(channel, &run.run_id).await?) {
            note(&text);
        }
    }
    line(&format!(
        "run {} {}",
        run.run_id,
        paint(outcome, style_of(outcome))
    ));
    Ok(ExitCode::from(code))
}

/// Why tasks failed, each with the last lines of its log.
pub(super) fn failures(tasks: &[Task]) -> Vec<String> {
    let mut lines = Vec::new();
    for task in tasks.iter().filter(|task| is_failed(task)) {
        let error = task.error.clone().unwrap_or_default();
        let place = task.path.trim_start_matches("root.");
        lines.push(format!("✗ {place}: {}", error.message));
        let tail = filter_log(&error.log_tail);
        lines.extend(tail.iter().map(|text| format!("    {text}")));
    }
    lines
}

fn is_failed(task: &Task) -> bool {
    task.state() == TaskState::Failed
        && matches!(
            task.r#type(),
            TaskType::Container | TaskType::Importer | TaskType::Iteration
        )
        && task.error.is_some()
}

/// What is shown.
struct ProgressDisplay {
    bars: Option<(MultiProgress, ProgressBar)>,
    running: HashMap<String, (Option<ProgressBar>, Option<Timestamp>)>,
    /// Remarks that were shown; many tasks may have the same.
    remarked: HashSet<String>,
    quiet: bool,
    done_count: u64,
}

impl ProgressDisplay {
    fn new(quiet: bool) -> Self {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let summary = all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                summary.set_style(style);
            }
            summary.enable_steady_tick(Duration::from_millis(100));
            (all, summary)
        });
        Self {
            bars,
            running: HashMap::new(),
            remarked: HashSet::new(),
            quiet,
            done_count: 0,
        }
    }

    fn task(&mut self, verb: &str, event: &Event) {
        let path = text(event, "path");
        let place = path.trim_start_matches("root.").to_owned();
        if place == "root" {
            return;
        }
        match verb {
            "started" => {
                let bar = self
                    .bars
                    .as_ref()
                    .filter(|_| self.running.len() < LINES_MAX);
                let bar = bar.map(|(all, summary)| {
                    let bar = all.insert_before(summary, ProgressBar::new_spinner());
                    bar.set_message(place.clone());
                    bar.enable_steady_tick(Duration::from_millis(100));
                    bar
                });
                if self.bars.is_none() {
                    self.print(&format!("started    {place}"));
                }
                self.running.insert(path, (bar, event.time));
                self.remark(&place, event);
            }
            "waiting" => self.show_waiting(&path, &place, &text(event, "note")),
            _ => self.task_ended(verb, &path, &place, event),
        }
        if let Some((_, summary)) = &self.bars {
            summary.set_message(format!(
                "{} running, {} done",
                self.running.len(),
                self.done_count
            ));
        }
    }

    /// Says what a task does not get, once for all that have the same.
    fn remark(&mut self, place: &str, event: &Event) {
        for remark in remarks::of_event(event) {
            if self.remarked.insert(remark.clone()) {
                self.print(&format!("remark     {place}: {remark}"));
            }
        }
    }

    /// Shows what a command waits for: beside its name until it begins, or as a line.
    fn show_waiting(&self, path: &str, place: &str, why: &str) {
        match self.running.get(path) {
            Some((Some(bar), _)) if why.is_empty() => bar.set_message(place.to_owned()),
            _ if why.is_empty() => {}
            Some((Some(bar), _)) => bar.set_message(format!("{place}: {why}")),
            _ => self.print(&format!("waiting    {place}: {why}")),
        }
    }

    fn task_ended(&mut self, verb: &str, path: &str, place: &str, event: &Event) {
        let started = self.running.remove(path);
        let took = started.as_ref().map_or_else(String::new, |(_, started)| {
            format!(" {}", duration(started.as_ref(), event.time.as_ref()))
        });
        let error = text(event, "error");
        if let Some((Some(bar), _)) = started {
            bar.finish_and_clear();
        }
        let sign = match verb {
            "succeeded" => "✓",
            "cached" => "≡",
            "skipped" => "-",
            "retrying" => "↻",
            _ => "✗",
        };
        self.done_count += u64::from(verb != "retrying");
        let error = if error.is_empty() {
            String::new()
        } else {
            format!(": {error}")
        };
        match &self.bars {
            Some(_) => self.print(&format!("{sign} {place}{took}{error}")),
            None => self.print(&format!("{verb:10} {place}{error}")),
        }
    }

    fn print(&self, text: &str) {
        match &self.bars {
            _ if self.quiet => {}
            Some((all, _)) => {
                // Above the bars; a line that is written past them would be drawn over.
                if all.println(text).is_err() {
                    note(text);
                }
            }
            None => note(text),
        }
    }
}

/// However the waiting ends, what moves on the terminal is taken away.
impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        if let Some((all, summary)) = &self.bars {
            summary.finish_and_clear();
            for (bar, _) in self.running.values() {
                bar.iter().for_each(ProgressBar::finish_and_clear);
            }
            // A terminal that is gone shows nothing any more.
            let _gone = all.clear().is_err();
        }
    }
}
