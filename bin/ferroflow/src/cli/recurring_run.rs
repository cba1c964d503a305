//! `ferroflow recurring-run`.

mod trigger;

use std::path::PathBuf;
use std::process::ExitCode;

use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::recurring_run::{Mode, PipelineSource, Status};
use ferroflow_proto::kfp::v2beta1::recurring_run_service_client::RecurringRunServiceClient;
use ferroflow_proto::pipelines::v1::{ListDueTimesRequest, ListDueTimesResponse};
use serde_json::{Map, Value};

use super::output::{line, note, short_ids, show, status_error, time};
use super::pipeline_args::{PipelineArgs, config};
use super::run::submit;
use super::table::table;
use super::{Channel, Global, clients, connect, find, spec};

const PACKAGE: &str = "kubeflow.pipelines.backend.api.v2beta1";

pub(super) const EXAMPLES: &str = "\
Examples:
  ferroflow recurring-run create pipeline.yaml --cron '0 9 * * mon-fri' --time-zone Europe/Berlin
  ferroflow recurring-run create --pipeline training --every 1h --no-catchup
  ferroflow recurring-run get nightly
  ferroflow recurring-run disable nightly";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Create a recurring run.
    Create(Box<Create>),
    /// List recurring runs, newest first.
    List {
        /// How many, at most 200.
        #[arg(long, default_value = "20", value_parser = clap::value_parser!(i32).range(1..=200))]
        limit: i32,
    },
    /// Show a recurring run and when it is due next.
    Get {
        /// The recurring run: its name, its id, the first characters of it, or @last.
        recurring_run: String,
    },
    /// Let it create runs.
    Enable {
        /// The recurring run: its name, its id, the first characters of it, or @last.
        recurring_run: String,
    },
    /// Let it create no more runs; those under way go on.
    Disable {
        /// The recurring run: its name, its id, the first characters of it, or @last.
        recurring_run: String,
    },
    /// Delete it; its runs stay, also those under way.
    Delete {
        /// The recurring run: its name, its id, the first characters of it, or @last.
        recurring_run: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "\
ferroflow recurring-run create [OPTIONS] <FILE>
       ferroflow recurring-run create [OPTIONS] --pipeline <PIPELINE>")]
pub(crate) struct Create {
    #[command(flatten)]
    pipeline_args: PipelineArgs,
    #[command(flatten)]
    trigger: trigger::Flags,
    /// The version of the uploaded pipeline to stay with, by name or id [default: the one that is
    /// the newest at each due time].
    #[arg(long, value_name = "VERSION", requires = "pipeline")]
    version: Option<String>,
    /// Runs of it that may be under way at once, 1 to 10.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    max_concurrency: i64,
    /// Of several missed times run the newest only.
    #[arg(long)]
    no_catchup: bool,
    /// Create no runs until it is enabled.
    #[arg(long)]
    disabled: bool,
    /// A parameter; repeat for several. Values are JSON (5, true, [1, 2]); those of text parameters
    /// are taken as they are, quotes included, and may hold macros such as
    /// [[ScheduledTime.2006-01-02]] and [[Index]].
    #[arg(long = "param", short, value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// A JSON file of parameters.
    #[arg(long, value_name = "FILE")]
    param_file: Option<PathBuf>,
    /// What it is called [default: the pipeline's name].
    #[arg(long)]
    name: Option<String>,
    /// A description.
    #[arg(long, default_value = "")]
    description: String,
    /// The experiment's name; one that is not there is made [default: Default].
    #[arg(long)]
    experiment: Option<String>,
}

pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    let channel = connect(global).await?;
    let mut client = clients::recurring_runs(&channel);
    let find = async |reference: &str| find::recurring_run(&channel, reference).await;
    match command {
        Command::Create(create) => self::create(&channel, *create, global).await?,
        Command::List { limit } => list(&mut client, limit, global).await?,
        Command::Get { recurring_run } => {
            let id = find(&recurring_run).await?;
            get(&channel, id, global).await?;
        }
        Command::Enable { recurring_run } => {
            let recurring_run_id = find(&recurring_run).await?;
            let request = pb::EnableRecurringRunRequest {
                recurring_run_id: recurring_run_id.clone(),
            };
            client
                .enable_recurring_run(request)
                .await
                .map_err(status_error)?;
            line("enabled");
            print_due(&channel, recurring_run_id, "enabled").await?;
        }
        Command::Disable { recurring_run } => {
            let recurring_run_id = find(&recurring_run).await?;
            let request = pb::DisableRecurringRunRequest { recurring_run_id };
            client
                .disable_recurring_run(request)
                .await
                .map_err(status_error)?;
            line("disabled");
        }
        Command::Delete { recurring_run } => {
            let recurring_run_id = find(&recurring_run).await?;
            let request = pb::DeleteRecurringRunRequest {
                recurring_run_id,
                ..Default::default()
            };
            client
                .delete_recurring_run(request)
                .await
                .map_err(status_error)?;
            line("deleted");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is run: its source, its name and its parameters.
async fn pipeline_source(
    channel: &Channel,
    create: &Create,
) -> anyhow::Result<(PipelineSource, String, Map<String, Value>)> {
    let version = create.version.as_deref();
    let pipeline = match create.pipeline_args.read()? {
        Some(pipeline) => pipeline,
        None => create.pipeline_args.fetch_stored(channel, version).await?,
    };
    let file = create.param_file.as_deref();
    let parameters = spec::parameters(&pipeline.document, file, &create.parameters)?;
    let source = match pipeline.stored {
        Some(mut reference) => {
            // Without a version, the newest one counts at each due time, not the one of now.
            if version.is_none() {
                reference.pipeline_version_id.clear();
            }
            PipelineSource::PipelineVersionReference(reference)
        }
        None => PipelineSource::PipelineSpec(spec::fields(&pipeline.document)),
    };
    Ok((source, pipeline.name, parameters))
}

async fn create(channel: &Channel, create: Create, global: &Global) -> anyhow::Result<()> {
    let trigger = create.trigger.read()?;
    let (source, name, parameters) = pipeline_source(channel, &create).await?;
    let experiment_id = match &create.experiment {
        Some(name) => submit::experiment(channel, name.clone()).await?,
        None => String::new(),
    };
    let mode = if create.disabled {
        Mode::Disable
    } else {
        Mode::Enable
    };
    let recurring_run = pb::RecurringRun {
        display_name: create.name.unwrap_or(name),
        description: create.description,
        experiment_id,
        pipeline_source: Some(source),
        runtime_config: Some(config(&parameters)),
        max_concurrency: create.max_concurrency,
        no_catchup: create.no_catchup,
        trigger,
        mode: mode as i32,
        ..pb::RecurringRun::default()
    };
    let request = pb::CreateRecurringRunRequest {
        recurring_run: Some(recurring_run),
    };
    let mut client = clients::recurring_runs(channel);
    let created = client
        .create_recurring_run(request)
        .await
        .map_err(status_error)?
        .into_inner();
    let name = format!("{PACKAGE}.RecurringRun");
    show(global.output, &name, &created, || {
        line(&created.recurring_run_id);
    })?;
    let state = status(&created);
    print_due(channel, created.recurring_run_id, state).await
}

async fn due(channel: &Channel, recurring_run_id: String) -> anyhow::Result<ListDueTimesResponse> {
    let request = ListDueTimesRequest {
        recurring_run_id,
        ..Default::default()
    };
    let mut client = clients::schedules(channel);
    let due = client.list_due_times(request).await.map_err(status_error)?;
    Ok(due.into_inner())
}

/// The next times beside the result.
async fn print_due(channel: &Channel, id: String, state: &str) -> anyhow::Result<()> {
    let due = due(channel, id.clone()).await?;
    for text in due_lines(&due, state, &id) {
        note(&text);
    }
    Ok(())
}

/// The next times by the clock of the schedule; of one that creates no runs, how it does again.
fn due_lines(due: &ListDueTimesResponse, state: &str, id: &str) -> Vec<String> {
    if state != "enabled" {
        return vec![format!(
            "it is {state}, no runs are created: ferroflow recurring-run enable {id}"
        )];
    }
    if due.times.is_empty() {
        return vec!["it will not be due again".to_owned()];
    }
    let zone = match due.time_zone.as_str() {
        "" => jiff::tz::TimeZone::system(),
        name => jiff::tz::TimeZone::get(name).unwrap_or(jiff::tz::TimeZone::UTC),
    };
    let mut lines = vec![format!(
        "due next ({}):",
        zone.iana_name().unwrap_or("local")
    )];
    for at in &due.times {
        let shown = jiff::Timestamp::new(at.seconds, at.nanos)
            .map(|at| {
                at.to_zoned(zone.clone())
                    .strftime("%a %Y-%m-%d %H:%M:%S %:z")
            })
            .map_or_else(|_| "?".to_owned(), |text| text.to_string());
        lines.push(format!("  {shown}"));
    }
    lines
}

fn status(found: &pb::RecurringRun) -> &'static str {
    match (found.status(), &found.error) {
        (Status::Enabled, _) => "enabled",
        (_, Some(_)) => "stopped",
        _ => "disabled",
    }
}

/// The trigger in one word or two.
fn trigger_text(found: &pb::RecurringRun) -> String {
    let trigger = found.trigger.as_ref();
    match trigger.and_then(|given| given.trigger.as_ref()) {
        Some(pb::trigger::Trigger::CronSchedule(cron)) => cron.cron.clone(),
        Some(pb::trigger::Trigger::PeriodicSchedule(periodic)) => {
            let length = jiff::SignedDuration::from_secs(periodic.interval_second);
            format!("every {length:#}")
        }
        None => "once".to_owned(),
    }
}

async fn list(
    client: &mut RecurringRunServiceClient<Channel>,
    limit: i32,
    global: &Global,
) -> anyhow::Result<()> {
    let request = pb::ListRecurringRunsRequest {
        page_size: limit,
        sort_by: "created_at desc".to_owned(),
        ..pb::ListRecurringRunsRequest::default()
    };
    let list = client
        .list_recurring_runs(request)
        .await
        .map_err(status_error)?;
    let list = list.into_inner();
    let name = format!("{PACKAGE}.ListRecurringRunsResponse");
    show(global.output, &name, &list, || {
        let ids = list.recurring_runs.iter();
        let ids = short_ids(global.output, ids.map(|one| one.recurring_run_id.as_str()));
        let rows = list.recurring_runs.iter().zip(ids).map(|(one, id)| {
            vec![
                id,
                one.display_name.clone(),
                status(one).to_owned(),
                trigger_text(one),
                time(one.created_at.as_ref()),
            ]
        });
        table(&["ID", "NAME", "STATE", "DUE", "CREATED"], rows.collect());
    })
}

async fn get(channel: &Channel, id: String, global: &Global) -> anyhow::Result<()> {
    let mut client = clients::recurring_runs(channel);
    let request = pb::GetRecurringRunRequest {
        recurring_run_id: id.clone(),
    };
    let found = client
        .get_recurring_run(request)
        .await
        .map_err(status_error)?;
    let found = found.into_inner();
    let due = due(channel, id).await?;
    show(
        global.output,
        &format!("{PACKAGE}.RecurringRun"),
        &found,
        || {
            line(&format!(
                "{}  {}  {}  {}",
                found.recurring_run_id,
                found.display_name,
                status(&found),
                trigger_text(&found)
            ));
            if let Some(error) = &found.error {
                line(&error.message);
            }
            let catchup = if found.no_catchup {
                "the newest missed time"
            } else {
                "every missed time"
            };
            line(&format!(
                "at most {} at once, {catchup} is run",
                found.max_concurrency
            ));
            for text in due_lines(&due, status(&found), &found.recurring_run_id) {
                line(&text);
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn due_times_are_told_by_the_clock_of_the_schedule() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let due = ListDueTimesResponse {
            times: vec![at(1_796_025_600), at(1_805_097_600)],
            time_zone: "UTC".to_owned(),
        };
        assert_eq!(
            due_lines(&due, "enabled", "7"),
            [
                "due next (UTC):",
                "  Mon 2026-11-30 08:00:00 +00:00",
                "  Mon 2027-03-15 08:00:00 +00:00"
            ]
        );
        let none = ListDueTimesResponse::default();
        assert_eq!(
            due_lines(&none, "enabled", "7"),
            ["it will not be due again"]
        );
        assert_eq!(
            due_lines(&due, "disabled", "7"),
            ["it is disabled, no runs are created: ferroflow recurring-run enable 7"]
        );
    }
}
