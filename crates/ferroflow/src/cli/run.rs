//! `ferroflow run`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use ferroflow_proto::json::from_json;
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::experiment_service_client::ExperimentServiceClient;
use ferroflow_proto::kfp::v2beta1::run::PipelineSource;
use ferroflow_proto::kfp::v2beta1::run_service_client::RunServiceClient;
use ferroflow_proto::pipelines::v1::task_service_client::TaskServiceClient;
use ferroflow_proto::pipelines::v1::{ListTasksRequest, StreamLogsRequest, Task};

use super::output::{duration, line, note, refused, show, table, time};
use super::{Channel, Format, Global, connect, spec, watch};

const PACKAGE: &str = "kubeflow.pipelines.backend.api.v2beta1";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a compiled pipeline.
    Submit(Submit),
    /// List runs, newest first.
    List {
        /// How many.
        #[arg(long, default_value = "20")]
        limit: i32,
    },
    /// Show a run and its tasks.
    Get {
        /// Its id.
        run_id: String,
    },
    /// Print what a run's commands printed.
    Logs {
        /// The run.
        run_id: String,
        /// Only this task: its id, its path or its name.
        task: Option<String>,
        /// Go on until it ends.
        #[arg(long, short)]
        follow: bool,
    },
    /// Wait until a run ends; exits with 0 if it succeeded, 1 if it failed, 3 if it was canceled.
    Wait {
        /// Its id.
        run_id: String,
    },
    /// Stop a run.
    Cancel {
        /// Its id.
        run_id: String,
    },
    /// Run again what failed, keep what succeeded.
    Retry {
        /// Its id.
        run_id: String,
    },
    /// Delete a run and its logs; artifacts stay.
    Delete {
        /// Its id.
        run_id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Submit {
    /// A pipeline compiled by the kfp SDK.
    file: PathBuf,
    /// A parameter; repeat for several. Values are JSON, texts need no quotes.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// A JSON file of parameters.
    #[arg(long, value_name = "FILE")]
    param_file: Option<PathBuf>,
    /// What the run is called [default: the file's name].
    #[arg(long)]
    name: Option<String>,
    /// The experiment's name [default: Default].
    #[arg(long)]
    experiment: Option<String>,
    /// Reuse no earlier results.
    #[arg(long)]
    no_cache: bool,
    /// Wait until it ends, showing its tasks.
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    let channel = connect(global).await?;
    let mut client = RunServiceClient::new(channel.clone());
    match command {
        Command::Submit(submit) => return self::submit(channel, submit, global).await,
        Command::List { limit } => list(&mut client, limit, global).await?,
        Command::Get { run_id } => get(channel, run_id, global).await?,
        Command::Logs {
            run_id,
            task,
            follow,
        } => logs(channel, run_id, task, follow).await?,
        Command::Wait { run_id } => return watch::wait(channel, run_id, global.output).await,
        Command::Cancel { run_id } => {
            let request = pb::TerminateRunRequest {
                run_id,
                ..Default::default()
            };
            client.terminate_run(request).await.map_err(refused)?;
            line("canceling");
        }
        Command::Retry { run_id } => {
            let request = pb::RetryRunRequest {
                run_id,
                ..Default::default()
            };
            client.retry_run(request).await.map_err(refused)?;
            line("retrying");
        }
        Command::Delete { run_id } => {
            let request = pb::DeleteRunRequest {
                run_id,
                ..Default::default()
            };
            client.delete_run(request).await.map_err(refused)?;
            line("deleted");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn submit(channel: Channel, submit: Submit, global: &Global) -> anyhow::Result<ExitCode> {
    let mut document = spec::read(&submit.file)?;
    let file = submit.param_file.as_deref();
    let parameters = spec::parameters(&document, file, &submit.parameters)?;
    if submit.no_cache {
        spec::without_cache(&mut document);
    }
    let experiment_id = match submit.experiment {
        Some(name) => experiment(channel.clone(), name).await?,
        None => String::new(),
    };
    let stem = submit
        .file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    let parameters = parameters
        .iter()
        .map(|(name, value)| (name.clone(), from_json(value)));
    let run = pb::Run {
        display_name: submit.name.or(stem).unwrap_or_default(),
        experiment_id,
        pipeline_source: Some(PipelineSource::PipelineSpec(spec::fields(&document))),
        runtime_config: Some(pb::RuntimeConfig {
            parameters: parameters.collect(),
            ..pb::RuntimeConfig::default()
        }),
        ..pb::Run::default()
    };
    let request = pb::CreateRunRequest {
        run: Some(run),
        ..Default::default()
    };
    let mut client = RunServiceClient::new(channel.clone());
    let made = client
        .create_run(request)
        .await
        .map_err(refused)?
        .into_inner();
    if submit.wait {
        note(&format!("run {}", made.run_id));
        return watch::wait(channel, made.run_id, global.output).await;
    }
    show(global.output, &format!("{PACKAGE}.Run"), &made, || {
        line(&made.run_id);
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The id of the experiment of this name, which is made if there is none.
async fn experiment(channel: Channel, name: String) -> anyhow::Result<String> {
    let mut client = ExperimentServiceClient::new(channel);
    let filter = serde_json::json!({"predicates": [
        {"operation": "EQUALS", "key": "display_name", "string_value": name},
    ]});
    let request = pb::ListExperimentsRequest {
        filter: filter.to_string(),
        ..Default::default()
    };
    let found = client
        .list_experiments(request)
        .await
        .map_err(refused)?
        .into_inner();
    if let Some(found) = found.experiments.into_iter().next() {
        return Ok(found.experiment_id);
    }
    let experiment = pb::Experiment {
        display_name: name,
        ..pb::Experiment::default()
    };
    let request = pb::CreateExperimentRequest {
        experiment: Some(experiment),
    };
    Ok(client
        .create_experiment(request)
        .await
        .map_err(refused)?
        .into_inner()
        .experiment_id)
}

/// What a run's state is called: one that failed because it was cancelled is canceled.
pub(super) fn state(run: &pb::Run) -> &'static str {
    match (
        run.state(),
        run.error.as_ref().map_or(0, |error| error.code),
    ) {
        (pb::RuntimeState::Failed, 1) => "canceled",
        (pb::RuntimeState::Pending, _) => "pending",
        (pb::RuntimeState::Running, _) => "running",
        (pb::RuntimeState::Succeeded, _) => "succeeded",
        (pb::RuntimeState::Failed, _) => "failed",
        (pb::RuntimeState::Canceling, _) => "canceling",
        _ => "unknown",
    }
}

async fn list(
    client: &mut RunServiceClient<Channel>,
    limit: i32,
    global: &Global,
) -> anyhow::Result<()> {
    let request = pb::ListRunsRequest {
        page_size: limit,
        sort_by: "created_at desc".to_owned(),
        ..Default::default()
    };
    let list = client
        .list_runs(request)
        .await
        .map_err(refused)?
        .into_inner();
    show(
        global.output,
        &format!("{PACKAGE}.ListRunsResponse"),
        &list,
        || {
            let rows = list.runs.iter().map(|run| {
                vec![
                    run.run_id.clone(),
                    run.display_name.clone(),
                    state(run).to_owned(),
                    time(run.created_at.as_ref()),
                    duration(run.created_at.as_ref(), run.finished_at.as_ref()),
                ]
            });
            table(
                &["ID", "NAME", "STATE", "CREATED (UTC)", "TOOK"],
                rows.collect(),
            );
        },
    )
}

pub(super) async fn tasks(channel: Channel, run_id: &str) -> anyhow::Result<Vec<Task>> {
    let mut client = TaskServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
    let request = ListTasksRequest {
        run_id: run_id.to_owned(),
    };
    Ok(client
        .list_tasks(request)
        .await
        .map_err(refused)?
        .into_inner()
        .tasks)
}

pub(super) async fn fetch(channel: Channel, run_id: &str) -> anyhow::Result<pb::Run> {
    let mut client = RunServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
    let request = pb::GetRunRequest {
        run_id: run_id.to_owned(),
        ..Default::default()
    };
    Ok(client.get_run(request).await.map_err(refused)?.into_inner())
}

async fn get(channel: Channel, run_id: String, global: &Global) -> anyhow::Result<()> {
    let run = fetch(channel.clone(), &run_id).await?;
    if global.output == Format::Json {
        return show(global.output, &format!("{PACKAGE}.Run"), &run, || {});
    }
    let tasks = tasks(channel, &run_id).await?;
    line(&format!(
        "{}  {}  {}",
        run.run_id,
        run.display_name,
        state(&run)
    ));
    if let Some(error) = &run.error {
        line(&format!("  {}", error.message));
    }
    let rows = tasks.iter().filter(|task| task.path != "root").map(|task| {
        let depth = task.path.matches('.').count().saturating_sub(1);
        let cache = task
            .cache
            .as_ref()
            .map(|cache| cache.reason.clone())
            .unwrap_or_default();
        vec![
            format!("{}{}", "  ".repeat(depth), task.name),
            watch::word(task.state()).to_owned(),
            duration(task.started_at.as_ref(), task.finished_at.as_ref()),
            match &task.error {
                _ if !task.note.is_empty() => task.note.clone(),
                Some(error) => error.message.clone(),
                None => cache,
            },
        ]
    });
    table(&["TASK", "STATE", "TOOK", "NOTE"], rows.collect());
    Ok(())
}

async fn logs(
    channel: Channel,
    run_id: String,
    wanted: Option<String>,
    follow: bool,
) -> anyhow::Result<()> {
    let all = tasks(channel.clone(), &run_id).await?;
    let is_wanted = |task: &&Task| match &wanted {
        Some(name) => [&task.task_id, &task.path, &task.name].contains(&name),
        None => task.attempt > 0,
    };
    let chosen: Vec<_> = all.iter().filter(is_wanted).collect();
    if chosen.is_empty() {
        match wanted {
            Some(name) => {
                bail!("run {run_id} has no task {name}: see `ferroflow run get {run_id}`")
            }
            None => bail!("no command of run {run_id} has started yet"),
        }
    }
    let mut client = TaskServiceClient::new(channel);
    for task in &chosen {
        if chosen.len() > 1 {
            note(&format!("==> {}", task.path.trim_start_matches("root.")));
        }
        let request = StreamLogsRequest {
            run_id: run_id.clone(),
            task_id: task.task_id.clone(),
            follow,
            ..StreamLogsRequest::default()
        };
        let mut stream = client
            .stream_logs(request)
            .await
            .map_err(refused)?
            .into_inner();
        while let Some(body) = stream.message().await.map_err(refused)? {
            std::io::stdout()
                .write_all(&body.data)
                .context("cannot print")?;
        }
    }
    Ok(())
}
