//! `ferroflow experiment`.

use std::process::ExitCode;

use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::experiment_service_client::ExperimentServiceClient;

use super::output::{line, refused, show, table, time};
use super::{Global, connect};

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
        /// How many.
        #[arg(long, default_value = "20")]
        limit: i32,
    },
    /// Show an experiment.
    Get {
        /// Its id.
        experiment_id: String,
    },
    /// Put an experiment and its runs away.
    Archive {
        /// Its id.
        experiment_id: String,
    },
    /// Bring an experiment back.
    Unarchive {
        /// Its id.
        experiment_id: String,
    },
    /// Delete an experiment; its runs stay.
    Delete {
        /// Its id.
        experiment_id: String,
    },
}

fn shown(global: &Global, found: &pb::Experiment) -> anyhow::Result<()> {
    show(
        global.output,
        &format!("{PACKAGE}.Experiment"),
        found,
        || {
            line(&format!("{}  {}", found.experiment_id, found.display_name));
        },
    )
}

pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    let mut client = ExperimentServiceClient::new(connect(global).await?);
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
            let made = client.create_experiment(request).await.map_err(refused)?;
            shown(global, made.get_ref())?;
        }
        Command::List { limit } => {
            let request = pb::ListExperimentsRequest {
                page_size: limit,
                sort_by: "created_at desc".to_owned(),
                ..pb::ListExperimentsRequest::default()
            };
            let list = client
                .list_experiments(request)
                .await
                .map_err(refused)?
                .into_inner();
            show(
                global.output,
                &format!("{PACKAGE}.ListExperimentsResponse"),
                &list,
                || {
                    let rows = list.experiments.iter().map(|one| {
                        vec![
                            one.experiment_id.clone(),
                            one.display_name.clone(),
                            one.storage_state().as_str_name().to_lowercase(),
                            time(one.last_run_created_at.as_ref()),
                        ]
                    });
                    table(&["ID", "NAME", "STATE", "LAST RUN (UTC)"], rows.collect());
                },
            )?;
        }
        Command::Get { experiment_id } => {
            let request = pb::GetExperimentRequest { experiment_id };
            let found = client.get_experiment(request).await.map_err(refused)?;
            shown(global, found.get_ref())?;
        }
        Command::Archive { experiment_id } => {
            let request = pb::ArchiveExperimentRequest { experiment_id };
            client.archive_experiment(request).await.map_err(refused)?;
            line("archived");
        }
        Command::Unarchive { experiment_id } => {
            let request = pb::UnarchiveExperimentRequest { experiment_id };
            client
                .unarchive_experiment(request)
                .await
                .map_err(refused)?;
            line("unarchived");
        }
        Command::Delete { experiment_id } => {
            let request = pb::DeleteExperimentRequest { experiment_id };
            client.delete_experiment(request).await.map_err(refused)?;
            line("deleted");
        }
    }
    Ok(ExitCode::SUCCESS)
}
