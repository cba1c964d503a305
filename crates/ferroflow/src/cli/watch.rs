//! Watching a run: a live picture of its tasks on a terminal, plain lines elsewhere.
//!
//! Nothing is polled: what is shown follows the run's events.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ferroflow_proto::events::v1::event_service_client::EventServiceClient;
use ferroflow_proto::events::v1::{Event, WatchRequest};
use ferroflow_proto::kfp::v2beta1::Run;
use ferroflow_proto::pipelines::v1::{Task, TaskState, TaskType};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use prost_types::value::Kind;

use super::output::{json_of, line, note, refused};
use super::run::{fetch, state, tasks};
use super::{Channel, Format};

/// Tasks that are shown at once; more scroll away above.
const LINES_MAX: usize = 20;

/// What a task's state is called.
pub(super) fn word(state: TaskState) -> &'static str {
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

/// A text out of an event's data.
fn text(event: &Event, key: &str) -> String {
    let value = event.data.as_ref().and_then(|data| data.fields.get(key));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// Waits until the run ends, showing what happens.
pub(super) async fn wait(
    channel: Channel,
    run_id: String,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let run = fetch(channel.clone(), &run_id).await?;
    let mut events = EventServiceClient::new(channel.clone());
    let request = WatchRequest {
        topics: vec!["ferroflow.pipelines.v1".to_owned()],
        subject_prefix: format!("namespaces/default/runs/{run_id}"),
        ..WatchRequest::default()
    };
    let mut stream = events.watch(request).await.map_err(refused)?.into_inner();
    let quiet = format == Format::Json;
    let mut picture = Picture::new(quiet);
    let mut ended = matches!(state(&run), "succeeded" | "failed" | "canceled");
    while !ended {
        let Some(response) = stream.message().await.map_err(refused)? else {
            break;
        };
        let event = response.event.unwrap_or_default();
        let kind = event.r#type.trim_start_matches("ai.ferroflow.").to_owned();
        match kind.split_once('.') {
            Some(("task", verb)) => picture.task(verb, &event),
            Some(("run", "succeeded" | "failed" | "canceled")) => {
                // An older end is not the end of a run that was retried since.
                ended = matches!(
                    state(&fetch(channel.clone(), &run_id).await?),
                    "succeeded" | "failed" | "canceled"
                );
            }
            _ => {}
        }
    }
    picture.finish();
    let run = fetch(channel.clone(), &run_id).await?;
    report(channel, &run, format).await
}

async fn report(channel: Channel, run: &Run, format: Format) -> anyhow::Result<ExitCode> {
    let (verdict, code) = match state(run) {
        "succeeded" => ("succeeded", 0),
        "canceled" => ("canceled", 3),
        other => (other, 1),
    };
    if format == Format::Json {
        let name = "kubeflow.pipelines.backend.api.v2beta1.Run";
        line(&serde_json::to_string_pretty(&json_of(name, run)?)?);
        return Ok(ExitCode::from(code));
    }
    if code == 1 {
        for task in tasks(channel, &run.run_id)
            .await?
            .iter()
            .filter(|task| failed(task))
        {
            let error = task.error.clone().unwrap_or_default();
            note(&format!(
                "✗ {}: {}",
                task.path.trim_start_matches("root."),
                error.message
            ));
            for text in error.log_tail.lines() {
                note(&format!("    {text}"));
            }
        }
    }
    line(&format!("run {} {verdict}", run.run_id));
    Ok(ExitCode::from(code))
}

fn failed(task: &Task) -> bool {
    task.state() == TaskState::Failed
        && matches!(
            task.r#type(),
            TaskType::Container | TaskType::Importer | TaskType::Iteration
        )
        && task.error.is_some()
}

/// What is shown.
struct Picture {
    bars: Option<(MultiProgress, ProgressBar)>,
    running: HashMap<String, (Option<ProgressBar>, Instant)>,
    quiet: bool,
    done: u64,
}

impl Picture {
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
            quiet,
            done: 0,
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
                    self.say(&format!("started    {place}"));
                }
                self.running.insert(path, (bar, Instant::now()));
            }
            "waiting" => self.waits(&path, &place, &text(event, "note")),
            _ => self.ended(verb, &path, &place, &text(event, "error")),
        }
        if let Some((_, summary)) = &self.bars {
            summary.set_message(format!(
                "{} running, {} done",
                self.running.len(),
                self.done
            ));
        }
    }

    /// Shows what a command waits for: beside its name until it begins, or as a line.
    fn waits(&self, path: &str, place: &str, why: &str) {
        match self.running.get(path) {
            Some((Some(bar), _)) if why.is_empty() => bar.set_message(place.to_owned()),
            _ if why.is_empty() => {}
            Some((Some(bar), _)) => bar.set_message(format!("{place}: {why}")),
            _ => self.say(&format!("waiting    {place}: {why}")),
        }
    }

    fn ended(&mut self, verb: &str, path: &str, place: &str, error: &str) {
        let begun = self.running.remove(path);
        let took = begun
            .as_ref()
            .map(|(_, begun)| format!(" {:.1}s", begun.elapsed().as_secs_f64()));
        let took = took.unwrap_or_default();
        if let Some((Some(bar), _)) = begun {
            bar.finish_and_clear();
        }
        let sign = match verb {
            "succeeded" => "✓",
            "cached" => "≡",
            "skipped" => "-",
            "retrying" => "↻",
            _ => "✗",
        };
        self.done += u64::from(verb != "retrying");
        let error = if error.is_empty() {
            String::new()
        } else {
            format!(": {error}")
        };
        match &self.bars {
            Some(_) => self.say(&format!("{sign} {place}{took}{error}")),
            None => self.say(&format!("{verb:10} {place}{error}")),
        }
    }

    fn say(&self, text: &str) {
        match &self.bars {
            _ if self.quiet => {}
            Some((all, _)) => {
                if all.println(text).is_err() {
                    note(text);
                }
            }
            None => note(text),
        }
    }

    fn finish(self) {
        if let Some((all, summary)) = self.bars {
            summary.finish_and_clear();
            if all.clear().is_err() {
                note("");
            }
        }
    }
}
