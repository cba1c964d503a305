//! `ferroflow run submit`.

use std::path::PathBuf;
use std::process::ExitCode;

use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::run::PipelineSource;
use tonic::Code;

use super::{PACKAGE, wait};
use crate::cli::output::{line, note, show, status_error};
use crate::cli::pipeline_args::{PipelineArgs, config};
use crate::cli::{Channel, Global, clients, connect, find, spec};

#[derive(Debug, clap::Args)]
#[command(override_usage = "\
ferroflow run submit [OPTIONS] <FILE>
       ferroflow run submit [OPTIONS] --pipeline <PIPELINE>")]
pub(crate) struct Submit {
    #[command(flatten)]
    pipeline_args: PipelineArgs,
    /// The version of the uploaded pipeline, by name or id [default: the newest].
    #[arg(long, value_name = "VERSION", requires = "pipeline")]
    version: Option<String>,
    /// A parameter; repeat for several. Values are JSON (5, true, [1, 2]); those of text parameters
    /// are taken as they are, quotes included.
    #[arg(long = "param", short, value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// A JSON file of parameters.
    #[arg(long, value_name = "FILE")]
    param_file: Option<PathBuf>,
    /// What the run is called [default: the pipeline's name].
    #[arg(long)]
    name: Option<String>,
    /// The experiment's name; one that is not there is made [default: Default].
    #[arg(long)]
    experiment: Option<String>,
    /// Reuse no earlier results. Of an uploaded pipeline a copy is run, with caching off.
    #[arg(long)]
    no_cache: bool,
    /// Wait until it ends, showing its tasks.
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(submit: Submit, global: &Global) -> anyhow::Result<ExitCode> {
    let read = submit.pipeline_args.read()?;
    let channel = connect(global).await?;
    let version = submit.version.as_deref();
    let mut pipeline = match read {
        Some(pipeline) => pipeline,
        None => submit.pipeline_args.fetch_stored(&channel, version).await?,
    };
    let file = submit.param_file.as_deref();
    let parameters = spec::parameters(&pipeline.document, file, &submit.parameters)?;
    if submit.no_cache {
        spec::without_cache(&mut pipeline.document);
        pipeline.stored = None;
    }
    let experiment_id = match submit.experiment {
        Some(name) => experiment(&channel, name).await?,
        None => String::new(),
    };
    let source = match pipeline.stored {
        Some(reference) => PipelineSource::PipelineVersionReference(reference),
        None => PipelineSource::PipelineSpec(spec::fields(&pipeline.document)),
    };
    let run = pb::Run {
        display_name: submit.name.unwrap_or(pipeline.name),
        experiment_id,
        pipeline_source: Some(source),
        runtime_config: Some(config(&parameters)),
        ..pb::Run::default()
    };
    let request = pb::CreateRunRequest {
        run: Some(run),
        ..Default::default()
    };
    let mut client = clients::runs(&channel);
    let created = client.create_run(request).await.map_err(status_error)?;
    let created = created.into_inner();
    if submit.wait {
        note(&format!("run {}", created.run_id));
        return wait(channel, created.run_id, global).await;
    }
    show(global.output, &format!("{PACKAGE}.Run"), &created, || {
        line(&created.run_id);
        note(&format!(
            "{} was submitted: ferroflow run wait {}",
            created.display_name,
            created.run_id.split('-').next().unwrap_or_default()
        ));
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The id of the experiment of this name, which is made if there is none.
pub(in crate::cli) async fn experiment(channel: &Channel, name: String) -> anyhow::Result<String> {
    if let Some(found) = find::experiment_named(channel, &name).await? {
        return Ok(found);
    }
    // An id is taken as well; the call that uses it says whether there is such an experiment.
    if uuid::Uuid::try_parse(&name).is_ok() {
        return Ok(name);
    }
    let mut client = clients::experiments(channel);
    let request = pb::CreateExperimentRequest {
        experiment: Some(pb::Experiment {
            display_name: name.clone(),
            ..pb::Experiment::default()
        }),
    };
    match client.create_experiment(request).await {
        Ok(created) => Ok(created.into_inner().experiment_id),
        // Another client made it between the two calls.
        Err(status) if status.code() == Code::AlreadyExists => {
            match find::experiment_named(channel, &name).await? {
                Some(found) => Ok(found),
                None => Err(status_error(status)),
            }
        }
        Err(status) => Err(status_error(status)),
    }
}
