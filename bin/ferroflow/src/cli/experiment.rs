//! `ferroflow experiment`.

use std::process::ExitCode;

use ferroflow_proto::kfp::v2beta1 as pb;

use super::output::{line, note, short_ids, show, status_error, time};
use super::table::table;
use super::{Channel, Global, clients, connect, find};

const PACKAGE: &str = "kubeflow.pipelines.backend.api.v2beta1";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Create an experiment.
    Create {
        /// Its name, unique.
        name: String,
        /// A description.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List experiments, newest first.
    List {
        /// How many, at most 200.
        #[arg(long, default_value = "20", value_parser = clap::value_parser!(i32).range(1..=200))]
        limit: i32,
    },
    /// Show an experiment.
    Get {
        /// The experiment: its name, its id, the first characters of it, or @last.
        experiment: String,
    },
    /// Put an experiment and its runs away.
    Archive {
        /// The experiment: its name, its id, the first characters of it, or @last.
        experiment: String,
    },
    /// Bring an experiment back.
    Unarchive {
        /// The experiment: its name, its id, the first characters of it, or @last.
        experiment: String,
    },
    /// Delete an experiment; its runs stay.
    Delete {
        /// The experiment: its name, its id, the first characters of it, or @last.
        experiment: String,
    },
}

fn shown(global: &Global, found: &pb::Experiment) -> anyhow::Result<()> {
    show(
        global.output,
        &format!("{PACKAGE}.Experiment"),
        found,
        || {
            let archived = found.storage_state() == pb::experiment::StorageState::Archived;
            let state = if archived { "  archived" } else { "" };
            let (id, name) = (&found.experiment_id, &found.display_name);
            line(&format!("{id}  {name}{state}"));
        },
    )
}

pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    let channel = connect(global).await?;
    let mut client = clients::experiments(&channel);
    match command {
        Command::Create { name, description } => {
            let experiment = pb::Experiment {
                display_name: name,
                description,
                ..pb::Experiment::default()
            };
            let request = pb::CreateExperimentRequest {
                experiment: Some(experiment),
            };
            let made = client
                .create_experiment(request)
                .await
                .map_err(status_error)?;
            shown(global, made.get_ref())?;
        }
        Command::List { limit } => list(channel, limit, global).await?,
        Command::Get { experiment } => {
            let experiment_id = find::experiment(&channel, &experiment).await?;
            let request = pb::GetExperimentRequest { experiment_id };
            let found = client.get_experiment(request).await.map_err(status_error)?;
            shown(global, found.get_ref())?;
        }
        Command::Archive { experiment } => {
            let experiment_id = find::experiment(&channel, &experiment).await?;
            let request = pb::ArchiveExperimentRequest { experiment_id };
            client
                .archive_experiment(request)
                .await
                .map_err(status_error)?;
            line("archived");
        }
        Command::Unarchive { experiment } => {
            let experiment_id = find::experiment(&channel, &experiment).await?;
            let request = pb::UnarchiveExperimentRequest { experiment_id };
            client
                .unarchive_experiment(request)
                .await
                .map_err(status_error)?;
            line("unarchived");
        }
        Command::Delete { experiment } => {
            let experiment_id = find::experiment(&channel, &experiment).await?;
            let request = pb::DeleteExperimentRequest { experiment_id };
            client
                .delete_experiment(request)
                .await
                .map_err(status_error)?;
            line("deleted");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(channel: Channel, limit: i32, global: &Global) -> anyhow::Result<()> {
    let request = pb::ListExperimentsRequest {
        page_size: limit,
        sort_by: "created_at desc".to_owned(),
        ..pb::ListExperimentsRequest::default()
    };
    let mut client = clients::experiments(&channel);
    let list = client
        .list_experiments(request)
        .await
        .map_err(status_error)?;
    let list = list.into_inner();
    let name = format!("{PACKAGE}.ListExperimentsResponse");
    show(global.output, &name, &list, || {
        if list.experiments.is_empty() {
            return note("no experiments");
        }
        let ids = list
            .experiments
            .iter()
            .map(|one| one.experiment_id.as_str());
        let ids = short_ids(global.output, ids);
        let rows = list.experiments.iter().zip(ids).map(|(one, id)| {
            vec![
                id,
                one.display_name.clone(),
                one.storage_state().as_str_name().to_lowercase(),
                time(one.last_run_created_at.as_ref()),
            ]
        });
        table(&["ID", "NAME", "STATE", "LAST RUN"], rows.collect());
    })
}
