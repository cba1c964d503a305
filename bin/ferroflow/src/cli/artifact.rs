//! `ferroflow artifact`: what tasks made.

mod download;
mod open;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use ferroflow_proto::json::struct_to_map;
use ferroflow_proto::pipelines::v1::{
    Artifact, GetArtifactRequest, ListArtifactsRequest, ListArtifactsResponse, Task,
};

use super::output::{line, note, show, size, status_error, time_with_zone};
use super::run::tasks as tasks_of;
use super::table::table;
use super::{Channel, Format, Global, clients, connect, find, pages};

const PACKAGE: &str = "ferroflow.pipelines.v1";

pub(super) const EXAMPLES: &str = "\
ARTIFACT is an artifact's number, or RUN/TASK/NAME: an output of a task of a run.

Examples:
  ferroflow artifact list --run @last
  ferroflow artifact get 17
  ferroflow artifact download @last/train/model --to model/
  ferroflow artifact open @last/evaluate/report";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List artifacts.
    List {
        /// Only those of this run [default: @last].
        #[arg(long)]
        run: Option<String>,
        /// Only those of this task of the run, by its name or path.
        #[arg(long)]
        task: Option<String>,
        /// Those of every run, oldest first.
        #[arg(long, conflicts_with_all = ["run", "task"])]
        all: bool,
        /// How many with --all, at most 200.
        #[arg(long, default_value = "20", value_parser = clap::value_parser!(i32).range(1..=200))]
        limit: i32,
        /// Go on with --all where the page before ended.
        #[arg(
            long,
            value_name = "TOKEN",
            default_value = "",
            hide_default_value = true
        )]
        page: String,
    },
    /// Show an artifact.
    Get {
        /// The artifact: its number, or RUN/TASK/NAME.
        artifact: String,
    },
    /// Write an artifact's content to a file, or to a folder if it is one.
    Download {
        /// The artifact: its number, or RUN/TASK/NAME.
        artifact: String,
        /// The file or folder; - for standard output [default: the artifact's name, here].
        #[arg(long, value_name = "PATH")]
        to: Option<PathBuf>,
        /// Only this file of an artifact that is a folder.
        #[arg(
            long,
            value_name = "PATH",
            default_value = "",
            hide_default_value = true
        )]
        path: String,
        /// Replace what is there.
        #[arg(long)]
        force: bool,
    },
    /// Show an artifact's content in the browser ($BROWSER, else the system's).
    Open {
        /// The artifact: its number, or RUN/TASK/NAME.
        artifact: String,
        /// The file of an artifact that is a folder.
        #[arg(
            long,
            value_name = "PATH",
            default_value = "",
            hide_default_value = true
        )]
        path: String,
        /// Only print the address.
        #[arg(long)]
        print: bool,
    },
}

pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    let channel = connect(global).await?;
    match command {
        Command::List {
            all: true,
            limit,
            page,
            ..
        } => list_all(channel, limit, page, global).await?,
        Command::List { run, task, .. } => {
            let run = run.unwrap_or_else(|| "@last".to_owned());
            list(channel, &run, task.as_deref(), global).await?;
        }
        Command::Get { artifact } => {
            let id = resolve_id(&channel, &artifact).await?;
            get(&channel, id, global).await?;
        }
        Command::Download {
            artifact,
            to,
            path,
            force,
        } => {
            let id = resolve_id(&channel, &artifact).await?;
            let found = fetch(&channel, id).await?;
            download::run(channel, &found, to, &path, force).await?;
        }
        Command::Open {
            artifact,
            path,
            print,
        } => {
            let id = resolve_id(&channel, &artifact).await?;
            // A missing artifact is an error of the command, and not a page in the browser.
            fetch(&channel, id).await?;
            let files = download::files(&channel, id).await?;
            let files: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
            open::check(id, &files, &path)?;
            open::run(id, &path, print, global).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether an artifact is metrics of some kind.
pub(super) fn is_metrics(artifact: &Artifact) -> bool {
    artifact.r#type.starts_with("system.") && artifact.r#type.ends_with("Metrics")
}

/// The number of the artifact that is meant.
async fn resolve_id(channel: &Channel, reference: &str) -> anyhow::Result<i64> {
    if let Ok(id) = reference.parse() {
        return Ok(id);
    }
    let parts: Vec<_> = reference.split('/').collect();
    let [run, task, name] = parts.as_slice() else {
        bail!(
            "{reference} is neither an artifact's number nor RUN/TASK/NAME: see `ferroflow artifact list`"
        );
    };
    let run_id = find::run(channel, run).await?;
    let tasks = tasks_of(channel.clone(), &run_id).await?;
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for task in tasks.iter().filter(|one| matches_name(one, task)) {
        names.extend(task.output_artifacts.keys().cloned());
        if let Some(refs) = task.output_artifacts.get(*name) {
            found.extend(refs.ids.iter().copied());
        }
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] if names.is_empty() => {
            bail!(
                "{reference}: task {task} of run {run_id} has no artifacts, or is not there: see `ferroflow run get {run_id}`"
            )
        }
        [] => {
            let names: Vec<_> = names.into_iter().collect();
            bail!(
                "{reference}: task {task} has no artifact {name}, only {}",
                names.join(", ")
            )
        }
        several => {
            let numbers: Vec<_> = several.iter().map(i64::to_string).collect();
            bail!(
                "{reference} fits the artifacts {}: say which one by its number",
                numbers.join(", ")
            )
        }
    }
}

/// Whether `name` means this task.
fn matches_name(task: &Task, name: &str) -> bool {
    let place = task.path.trim_start_matches("root.");
    [&task.task_id, &task.path, &task.name]
        .iter()
        .any(|one| *one == name)
        || place == name
}

async fn fetch(channel: &Channel, artifact_id: i64) -> anyhow::Result<Artifact> {
    let mut client = clients::tasks(channel);
    let found = client
        .get_artifact(GetArtifactRequest { artifact_id })
        .await;
    Ok(found.map_err(status_error)?.into_inner())
}

/// Every artifact that tasks gave, those of results that were reused included.
pub(super) async fn list_for_tasks(
    channel: &Channel,
    run_id: &str,
    tasks: &[Task],
) -> anyhow::Result<Vec<Artifact>> {
    let mut client = clients::tasks(channel);
    let mut artifacts = pages::all(async |page_token| {
        let request = ListArtifactsRequest {
            run_id: run_id.to_owned(),
            page_token,
            ..ListArtifactsRequest::default()
        };
        let listed = client.list_artifacts(request).await;
        let page = listed.map_err(status_error)?.into_inner();
        Ok((page.artifacts, page.next_page_token))
    })
    .await?;
    let listed_ids: BTreeSet<_> = artifacts.iter().map(|one| one.artifact_id).collect();
    let referenced: BTreeSet<_> = tasks
        .iter()
        .flat_map(|task| task.output_artifacts.values())
        .flat_map(|refs| refs.ids.iter().copied())
        .collect();
    // A reused result belongs to the run that made it, so the list of this run does not have it.
    for id in referenced.difference(&listed_ids) {
        artifacts.push(fetch(channel, *id).await?);
    }
    artifacts.sort_by_key(|one| one.artifact_id);
    Ok(artifacts)
}

/// Prints a table of artifacts; `producer_path` names the task of one.
pub(super) fn print(
    artifacts: &[Artifact],
    format: Format,
    producer_path: &dyn Fn(&Artifact) -> String,
) {
    if artifacts.is_empty() {
        note("no artifacts");
        return;
    }
    let wide = format == Format::Wide;
    let rows = artifacts.iter().map(|one| {
        let mut row = vec![
            one.artifact_id.to_string(),
            one.name.clone(),
            one.r#type.trim_start_matches("system.").to_owned(),
            if one.size_bytes > 0 {
                size(one.size_bytes)
            } else {
                String::new()
            },
            producer_path(one),
        ];
        if wide {
            row.push(one.uri.clone());
        }
        row
    });
    let head = ["ID", "NAME", "TYPE", "SIZE", "TASK", "URI"];
    table(&head[..if wide { 6 } else { 5 }], rows.collect());
}

async fn list(
    channel: Channel,
    run: &str,
    task: Option<&str>,
    global: &Global,
) -> anyhow::Result<()> {
    let run_id = find::run(&channel, run).await?;
    let tasks = tasks_of(channel.clone(), &run_id).await?;
    let mut artifacts = list_for_tasks(&channel, &run_id, &tasks).await?;
    if let Some(name) = task {
        let mut of_task = BTreeSet::new();
        let mut matching = tasks
            .iter()
            .filter(|one| matches_name(one, name))
            .peekable();
        if matching.peek().is_none() {
            bail!("run {run_id} has no task {name}: see `ferroflow run get {run_id}`");
        }
        for refs in matching.flat_map(|task| task.output_artifacts.values()) {
            of_task.extend(refs.ids.iter().copied());
        }
        artifacts.retain(|one| of_task.contains(&one.artifact_id));
    }
    let listed = ListArtifactsResponse {
        artifacts,
        next_page_token: String::new(),
    };
    let producer_path = |artifact: &Artifact| {
        let is_producer = |task: &&Task| {
            let mut ids = task.output_artifacts.values().flat_map(|refs| &refs.ids);
            task.path != "root" && ids.any(|id| *id == artifact.artifact_id)
        };
        // The deepest one made it, those above pass it on.
        let producer = tasks.iter().rev().find(is_producer);
        producer.map_or_else(String::new, |task| {
            task.path.trim_start_matches("root.").to_owned()
        })
    };
    show(
        global.output,
        &format!("{PACKAGE}.ListArtifactsResponse"),
        &listed,
        || {
            print(&listed.artifacts, global.output, &producer_path);
        },
    )
}

async fn list_all(
    channel: Channel,
    page_size: i32,
    page_token: String,
    global: &Global,
) -> anyhow::Result<()> {
    let mut client = clients::tasks(&channel);
    let request = ListArtifactsRequest {
        page_size,
        page_token,
        ..ListArtifactsRequest::default()
    };
    let listed = client
        .list_artifacts(request)
        .await
        .map_err(status_error)?
        .into_inner();
    show(
        global.output,
        &format!("{PACKAGE}.ListArtifactsResponse"),
        &listed,
        || {
            print(&listed.artifacts, global.output, &|_| String::new());
        },
    )?;
    if global.output != Format::Json && !listed.next_page_token.is_empty() {
        note(&format!(
            "there are more: go on with --page {}",
            listed.next_page_token
        ));
    }
    Ok(())
}

async fn get(channel: &Channel, id: i64, global: &Global) -> anyhow::Result<()> {
    let found = fetch(channel, id).await?;
    let files = download::files(channel, id)
        .await
        .context("cannot list its files")?;
    show(
        global.output,
        &format!("{PACKAGE}.Artifact"),
        &found,
        || {
            let rows = [
                ("Artifact", found.artifact_id.to_string()),
                ("Name", found.name.clone()),
                ("Type", found.r#type.clone()),
                ("URI", found.uri.clone()),
                ("Digest", found.digest.clone()),
                (
                    "Size",
                    if found.size_bytes > 0 {
                        size(found.size_bytes)
                    } else {
                        String::new()
                    },
                ),
                ("Run", found.run_id.clone()),
                ("Task", found.task_id.clone()),
                ("Created", time_with_zone(found.created_at.as_ref())),
            ];
            for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
                line(&format!("{name:9} {value}"));
            }
            for (name, value) in &found
                .metadata
                .as_ref()
                .map(struct_to_map)
                .unwrap_or_default()
            {
                line(&format!("  {name}  {value}"));
            }
            for file in &files {
                line(&format!("  {}  {}", file.path, size(file.size_bytes)));
            }
        },
    )
}
