//! What a user means: an id, the first characters of one, a name, or `@last`.
//!
//! A name wins over the beginning of an id. What fits several is never guessed.

use anyhow::{anyhow, bail};
use ferroflow_proto::kfp::v2beta1 as pb;
use serde_json::{Value, json};
use uuid::Uuid;

use super::output::{status_error, time};
use super::run::state;
use super::{Channel, clients};

/// The newest object of its kind.
const LAST_REFERENCE: &str = "@last";

/// So many of those that a reference fits are told.
const CANDIDATES_SHOWN_MAX: usize = 8;

/// An object that a reference may mean.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    id: String,
    /// What people tell it by: its name, state, time.
    description: String,
}

/// Which objects are looked for.
enum Kind {
    Run,
    RecurringRun,
    Experiment,
    Pipeline,
    /// A version of this pipeline.
    Version(String),
}

impl Kind {
    fn noun(&self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::RecurringRun => "recurring run",
            Self::Experiment => "experiment",
            Self::Pipeline => "pipeline",
            Self::Version(_) => "version",
        }
    }

    fn list_command(&self) -> String {
        match self {
            Self::Version(pipeline) => format!("ferroflow pipeline get {pipeline}"),
            Self::RecurringRun => "ferroflow recurring-run list".to_owned(),
            other => format!("ferroflow {} list", other.noun()),
        }
    }
}

/// The id of the run that is meant.
pub(super) async fn run(channel: &Channel, reference: &str) -> anyhow::Result<String> {
    resolve(channel, &Kind::Run, reference).await
}

/// The id of the recurring run that is meant.
pub(super) async fn recurring_run(channel: &Channel, reference: &str) -> anyhow::Result<String> {
    resolve(channel, &Kind::RecurringRun, reference).await
}

/// The id of the experiment that is meant.
pub(super) async fn experiment(channel: &Channel, reference: &str) -> anyhow::Result<String> {
    resolve(channel, &Kind::Experiment, reference).await
}

/// The id of the pipeline that is meant.
pub(super) async fn pipeline(channel: &Channel, reference: &str) -> anyhow::Result<String> {
    resolve(channel, &Kind::Pipeline, reference).await
}

/// The id of the version of a pipeline that is meant.
pub(super) async fn version(
    channel: &Channel,
    pipeline_id: &str,
    reference: &str,
) -> anyhow::Result<String> {
    let kind = Kind::Version(pipeline_id.to_owned());
    resolve(channel, &kind, reference).await
}

/// The experiment of this name, if there is one.
pub(super) async fn experiment_named(
    channel: &Channel,
    name: &str,
) -> anyhow::Result<Option<String>> {
    let found = list(
        channel,
        &Kind::Experiment,
        &name_filter("display_name", name),
    )
    .await?;
    Ok(found.into_iter().next().map(|candidate| candidate.id))
}

async fn resolve(channel: &Channel, kind: &Kind, reference: &str) -> anyhow::Result<String> {
    if reference == LAST_REFERENCE {
        let newest = list(channel, kind, &json!({})).await?;
        let newest = newest.into_iter().next();
        return newest
            .map(|candidate| candidate.id)
            .ok_or_else(|| anyhow!("{LAST_REFERENCE}: there is no {} yet", kind.noun()));
    }
    if reference.starts_with('@') {
        bail!(
            "{reference} is not known: {LAST_REFERENCE} is the newest {}",
            kind.noun()
        );
    }
    // Not looked up: the call that takes the id says whether there is such an object.
    if let Ok(id) = Uuid::try_parse(reference) {
        return Ok(id.hyphenated().to_string());
    }
    // What people see comes first. Of pipelines and versions, KFP has a second name that need not
    // be the same.
    for key in ["display_name", "name"] {
        let found = list(channel, kind, &name_filter(key, reference)).await?;
        if !found.is_empty() {
            return expect_one(kind, reference, found, "is the name of");
        }
    }
    let id_prefix = reference.to_ascii_lowercase();
    if id_prefix.is_empty() || !id_prefix.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        bail!("{}", not_found_message(kind, reference));
    }
    let mut found = list(channel, kind, &id_prefix_filter(kind, &id_prefix)).await?;
    // The order of texts is the database's, so what it gives is looked at again.
    found.retain(|candidate| candidate.id.starts_with(&id_prefix));
    if found.is_empty() {
        bail!("{}", not_found_message(kind, reference));
    }
    expect_one(kind, reference, found, "begins the ids of")
}

fn not_found_message(kind: &Kind, reference: &str) -> String {
    let (noun, list_command) = (kind.noun(), kind.list_command());
    format!("no {noun} has the name or the id {reference}: see `{list_command}`")
}

fn expect_one(
    kind: &Kind,
    reference: &str,
    mut found: Vec<Candidate>,
    relation: &str,
) -> anyhow::Result<String> {
    if found.len() == 1 {
        return Ok(found.remove(0).id);
    }
    let more = found.len() > CANDIDATES_SHOWN_MAX;
    let count = if more {
        format!("more than {CANDIDATES_SHOWN_MAX}")
    } else {
        found.len().to_string()
    };
    let noun = kind.noun();
    let mut lines = vec![format!(
        "{reference} {relation} {count} {noun}s: give more of the id, or {LAST_REFERENCE} for the newest {noun}"
    )];
    for candidate in found.iter().take(CANDIDATES_SHOWN_MAX) {
        lines.push(format!("  {}  {}", candidate.id, candidate.description));
    }
    bail!("{}", lines.join("\n"))
}

fn name_filter(key: &str, name: &str) -> Value {
    json!({"predicates": [{"operation": "EQUALS", "key": key, "string_value": name}]})
}

/// Ids are lower-case hexadecimal, so `g` is above all that may follow.
fn id_prefix_filter(kind: &Kind, id_prefix: &str) -> Value {
    let key = match kind {
        Kind::Run => "run_id",
        Kind::RecurringRun => "recurring_run_id",
        Kind::Experiment => "experiment_id",
        Kind::Pipeline => "pipeline_id",
        Kind::Version(_) => "id",
    };
    let end = format!("{id_prefix}g");
    json!({"predicates": [
        {"operation": "GREATER_THAN_EQUALS", "key": key, "string_value": id_prefix},
        {"operation": "LESS_THAN", "key": key, "string_value": end},
    ]})
}

/// The newest objects that match.
async fn list(channel: &Channel, kind: &Kind, filter: &Value) -> anyhow::Result<Vec<Candidate>> {
    let channel = channel.clone();
    let filter = match filter.as_object() {
        Some(fields) if fields.is_empty() => String::new(),
        _ => filter.to_string(),
    };
    match kind {
        Kind::Run => runs(channel, filter).await,
        Kind::RecurringRun => recurring_runs(channel, filter).await,
        Kind::Experiment => experiments(channel, filter).await,
        Kind::Pipeline => pipelines(channel, filter).await,
        Kind::Version(pipeline) => versions(channel, pipeline.clone(), filter).await,
    }
}

const NEWEST_FIRST: &str = "created_at desc";
/// One more than is told, so that it is known whether there are more.
const PAGE_SIZE: i32 = 9;

async fn runs(channel: Channel, filter: String) -> anyhow::Result<Vec<Candidate>> {
    let request = pb::ListRunsRequest {
        page_size: PAGE_SIZE,
        sort_by: NEWEST_FIRST.to_owned(),
        filter,
        ..Default::default()
    };
    let mut client = clients::runs(&channel);
    let list = client.list_runs(request).await.map_err(status_error)?;
    let candidate = |run: pb::Run| Candidate {
        description: format!(
            "{}  {}  {}",
            run.display_name,
            state(&run),
            time(run.created_at.as_ref())
        ),
        id: run.run_id,
    };
    Ok(list.into_inner().runs.into_iter().map(candidate).collect())
}

async fn recurring_runs(channel: Channel, filter: String) -> anyhow::Result<Vec<Candidate>> {
    let request = pb::ListRecurringRunsRequest {
        page_size: PAGE_SIZE,
        sort_by: NEWEST_FIRST.to_owned(),
        filter,
        ..Default::default()
    };
    let mut client = clients::recurring_runs(&channel);
    let list = client
        .list_recurring_runs(request)
        .await
        .map_err(status_error)?;
    let candidate = |recurring_run: pb::RecurringRun| Candidate {
        id: recurring_run.recurring_run_id,
        description: recurring_run.display_name,
    };
    let found = list.into_inner().recurring_runs;
    Ok(found.into_iter().map(candidate).collect())
}

async fn experiments(channel: Channel, filter: String) -> anyhow::Result<Vec<Candidate>> {
    let request = pb::ListExperimentsRequest {
        page_size: PAGE_SIZE,
        sort_by: NEWEST_FIRST.to_owned(),
        filter,
        ..Default::default()
    };
    let mut client = clients::experiments(&channel);
    let list = client
        .list_experiments(request)
        .await
        .map_err(status_error)?;
    let candidate = |experiment: pb::Experiment| Candidate {
        id: experiment.experiment_id,
        description: experiment.display_name,
    };
    Ok(list
        .into_inner()
        .experiments
        .into_iter()
        .map(candidate)
        .collect())
}

async fn pipelines(channel: Channel, filter: String) -> anyhow::Result<Vec<Candidate>> {
    let request = pb::ListPipelinesRequest {
        page_size: PAGE_SIZE,
        sort_by: NEWEST_FIRST.to_owned(),
        filter,
        ..Default::default()
    };
    let mut client = clients::pipelines(&channel);
    let list = client.list_pipelines(request).await.map_err(status_error)?;
    let candidate = |pipeline: pb::Pipeline| Candidate {
        id: pipeline.pipeline_id,
        description: pipeline.display_name,
    };
    Ok(list
        .into_inner()
        .pipelines
        .into_iter()
        .map(candidate)
        .collect())
}

async fn versions(
    channel: Channel,
    pipeline_id: String,
    filter: String,
) -> anyhow::Result<Vec<Candidate>> {
    let request = pb::ListPipelineVersionsRequest {
        pipeline_id,
        page_size: PAGE_SIZE,
        sort_by: NEWEST_FIRST.to_owned(),
        filter,
        ..Default::default()
    };
    let mut client = clients::pipelines(&channel);
    let list = client
        .list_pipeline_versions(request)
        .await
        .map_err(status_error)?;
    let candidate = |version: pb::PipelineVersion| Candidate {
        id: version.pipeline_version_id,
        description: version.display_name,
    };
    let versions = list.into_inner().pipeline_versions;
    Ok(versions.into_iter().map(candidate).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: usize) -> Vec<Candidate> {
        let one = |at| Candidate {
            id: format!("3f{at}"),
            description: "addition".to_owned(),
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn what_fits_several_is_told_and_never_guessed() {
        let problem = |count| {
            let found = expect_one(&Kind::Run, "3f", candidates(count), "begins the ids of");
            found.unwrap_err().to_string()
        };

        let message = problem(2);
        assert!(
            message.starts_with("3f begins the ids of 2 runs: "),
            "{message}"
        );
        assert!(
            message.contains("3f0  addition") && message.contains("3f1"),
            "{message}"
        );
        assert!(problem(9).contains("more than 8 runs"));
        let one = expect_one(&Kind::Run, "3f", candidates(1), "begins the ids of");
        assert_eq!(one.unwrap(), "3f0");
    }
}
