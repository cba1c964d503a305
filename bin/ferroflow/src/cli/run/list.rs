//! `ferroflow run list`.

use anyhow::bail;
use clap::ValueEnum;
use ferroflow_proto::kfp::v2beta1 as pb;
use serde_json::{Value, json};

use super::{PACKAGE, state};
use crate::cli::output::{note, short_ids, show, status_error, time, whole_seconds};
use crate::cli::table::table;
use crate::cli::{Channel, Format, Global, clients, find, pages};

/// The states that runs can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Canceling,
    Canceled,
}

impl State {
    /// The word in filters.
    fn api_name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Canceling => "CANCELING",
            Self::Canceled => "CANCELED",
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only runs in this state; repeat for several.
    #[arg(long, value_enum)]
    state: Vec<State>,
    /// Only runs of this experiment: its name, its id or the first characters of it.
    #[arg(long)]
    experiment: Option<String>,
    /// Only runs of this pipeline: the name in its specification, or an uploaded pipeline's name or
    /// id.
    #[arg(long)]
    pipeline: Option<String>,
    /// Only runs that were put away, which are left out otherwise.
    #[arg(long)]
    archived: bool,
    /// How many on a page, at most 200.
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(i32).range(1..=200))]
    limit: i32,
    /// Which page, from 1.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    page: u32,
}

pub(super) async fn run(channel: Channel, list: List, global: &Global) -> anyhow::Result<()> {
    let experiment_id = match &list.experiment {
        Some(experiment) => find::experiment(&channel, experiment).await?,
        None => String::new(),
    };
    let mut client = clients::runs(&channel);
    let mut request = pb::ListRunsRequest {
        experiment_id,
        page_size: list.limit,
        sort_by: "created_at desc".to_owned(),
        filter: filter(&channel, &list).await?,
        ..Default::default()
    };
    let mut found = client
        .list_runs(request.clone())
        .await
        .map_err(status_error)?
        .into_inner();
    // The API has tokens and no numbers of pages: those before are read to get to this one.
    for page in 1..list.page {
        if found.next_page_token.is_empty() {
            bail!(
                "--page {}: there are {page} pages of {} runs",
                list.page,
                list.limit
            );
        }
        request.page_token = found.next_page_token;
        found = client
            .list_runs(request.clone())
            .await
            .map_err(status_error)?
            .into_inner();
    }
    let wide = global.output == Format::Wide;
    let experiments = if wide {
        names(channel).await?
    } else {
        Vec::new()
    };
    show(
        global.output,
        &format!("{PACKAGE}.ListRunsResponse"),
        &found,
        || {
            print(&found, &experiments, global.output);
        },
    )?;
    if global.output != Format::Json && !found.next_page_token.is_empty() {
        let (shown, next) = (found.runs.len(), list.page + 1);
        note(&format!(
            "{shown} of {} runs: go on with --page {next}",
            found.total_size
        ));
    }
    Ok(())
}

fn print(found: &pb::ListRunsResponse, experiments: &[(String, String)], format: Format) {
    if found.runs.is_empty() {
        note("no runs");
        return;
    }
    let ids = short_ids(format, found.runs.iter().map(|run| run.run_id.as_str()));
    let wide = format == Format::Wide;
    let rows = found.runs.iter().zip(ids).map(|(run, id)| {
        let mut row = vec![
            id,
            run.display_name.clone(),
            state(run).to_owned(),
            time(run.created_at.as_ref()),
            whole_seconds(run.created_at.as_ref(), run.finished_at.as_ref()),
        ];
        if wide {
            let of = experiments.iter().find(|(id, _)| *id == run.experiment_id);
            row.push(of.map_or(&run.experiment_id, |(_, name)| name).clone());
        }
        row
    });
    let head: &[&str] = &["ID", "NAME", "STATE", "CREATED", "TOOK", "EXPERIMENT"];
    let columns = if wide { 6 } else { 5 };
    table(&head[..columns], rows.collect());
}

/// The filter of the API for what is asked.
async fn filter(channel: &Channel, list: &List) -> anyhow::Result<String> {
    let (operation, archived) = if list.archived {
        ("EQUALS", "ARCHIVED")
    } else {
        ("NOT_EQUALS", "ARCHIVED")
    };
    let mut predicates = vec![predicate(operation, "storage_state", archived)];
    if !list.state.is_empty() {
        let api_names: Vec<_> = list.state.iter().map(|state| state.api_name()).collect();
        predicates.push(json!({
            "operation": "IN", "key": "state", "string_values": {"values": api_names},
        }));
    }
    if let Some(pipeline) = &list.pipeline {
        predicates.push(pipeline_predicate(channel, pipeline).await?);
    }
    Ok(json!({"predicates": predicates}).to_string())
}

fn predicate(operation: &str, key: &str, value: &str) -> Value {
    json!({"operation": operation, "key": key, "string_value": value})
}

/// Runs know the name in their pipeline's specification, whether it was uploaded or not; only who
/// names it otherwise means an uploaded one.
async fn pipeline_predicate(channel: &Channel, pipeline: &str) -> anyhow::Result<Value> {
    let by_name = predicate("EQUALS", "pipeline_name", pipeline);
    let request = pb::ListRunsRequest {
        page_size: 1,
        filter: json!({"predicates": [by_name]}).to_string(),
        ..Default::default()
    };
    let mut client = clients::runs(channel);
    let found = client.list_runs(request).await.map_err(status_error)?;
    if !found.into_inner().runs.is_empty() {
        return Ok(by_name);
    }
    let id = find::pipeline(channel, pipeline).await?;
    Ok(predicate("EQUALS", "pipeline_id", &id))
}

/// Ids and names of experiments.
async fn names(channel: Channel) -> anyhow::Result<Vec<(String, String)>> {
    let mut client = clients::experiments(&channel);
    pages::all(async |page_token| {
        let request = pb::ListExperimentsRequest {
            page_size: 200,
            page_token,
            ..Default::default()
        };
        let list = client
            .list_experiments(request)
            .await
            .map_err(status_error)?;
        let list = list.into_inner();
        let pairs = list.experiments.into_iter();
        let pairs = pairs.map(|one| (one.experiment_id, one.display_name));
        Ok((pairs.collect(), list.next_page_token))
    })
    .await
}
