//! `ferroflow run submit`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use ferroflow_proto::json::{from_json, struct_to_map};
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::experiment_service_client::ExperimentServiceClient;
use ferroflow_proto::kfp::v2beta1::pipeline_service_client::PipelineServiceClient;
use ferroflow_proto::kfp::v2beta1::run::PipelineSource;
use ferroflow_proto::kfp::v2beta1::run_service_client::RunServiceClient;
use serde_json::Value;
use tonic::Code;

use super::{PACKAGE, wait};
use crate::cli::connect::MESSAGE_MAX;
use crate::cli::output::{line, note, refused, show};
use crate::cli::{Channel, Global, connect, find, spec};

#[derive(Debug, clap::Args)]
pub(crate) struct Submit {
    /// A pipeline compiled by the kfp SDK (.yaml, .json, or a .zip or .tar.gz with one), or a Python
    /// file with one pipeline (.py), which is compiled first.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    compiler: spec::Compiler,
    /// An uploaded pipeline instead of a file: its name, its id or the first characters of it.
    #[arg(
        long,
        value_name = "PIPELINE",
        conflicts_with = "file",
        required_unless_present = "file"
    )]
    pipeline: Option<String>,
    /// The version of the uploaded pipeline, by name or id [default: the newest].
    #[arg(long, value_name = "VERSION", requires = "pipeline")]
    version: Option<String>,
    /// A parameter; repeat for several. Values are JSON, texts need no quotes.
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

/// What is run: its documents, and the stored version that they are of.
pub(in crate::cli) struct Chosen {
    pub(in crate::cli) document: Value,
    pub(in crate::cli) name: String,
    pub(in crate::cli) stored: Option<pb::PipelineVersionReference>,
}

pub(super) async fn run(submit: Submit, global: &Global) -> anyhow::Result<ExitCode> {
    let (channel, mut chosen) = match (&submit.file, &submit.pipeline) {
        (Some(file), _) => {
            let document = submit.compiler.read(file)?.document;
            let chosen = Chosen {
                name: spec::name(&document),
                document,
                stored: None,
            };
            (connect(global).await?, chosen)
        }
        (None, Some(pipeline)) => {
            let channel = connect(global).await?;
            let chosen = stored(&channel, pipeline, submit.version.as_deref()).await?;
            (channel, chosen)
        }
        (None, None) => bail!("a FILE with a pipeline, or --pipeline, is needed"),
    };
    let file = submit.param_file.as_deref();
    let parameters = spec::parameters(&chosen.document, file, &submit.parameters)?;
    if submit.no_cache {
        spec::without_cache(&mut chosen.document);
        chosen.stored = None;
    }
    let experiment_id = match submit.experiment {
        Some(name) => experiment(&channel, name).await?,
        None => String::new(),
    };
    let parameters = parameters
        .iter()
        .map(|(name, value)| (name.clone(), from_json(value)));
    let source = match chosen.stored {
        Some(reference) => PipelineSource::PipelineVersionReference(reference),
        None => PipelineSource::PipelineSpec(spec::fields(&chosen.document)),
    };
    let run = pb::Run {
        display_name: submit.name.unwrap_or(chosen.name),
        experiment_id,
        pipeline_source: Some(source),
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
    let mut client = RunServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX);
    let made = client.create_run(request).await.map_err(refused)?;
    let made = made.into_inner();
    if submit.wait {
        note(&format!("run {}", made.run_id));
        return wait(channel, made.run_id, global).await;
    }
    show(global.output, &format!("{PACKAGE}.Run"), &made, || {
        line(&made.run_id);
        note(&format!(
            "{} was submitted: ferroflow run wait {}",
            made.display_name,
            made.run_id.split('-').next().unwrap_or_default()
        ));
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A version of an uploaded pipeline, the newest unless one is named.
pub(in crate::cli) async fn stored(
    channel: &Channel,
    pipeline: &str,
    version: Option<&str>,
) -> anyhow::Result<Chosen> {
    let pipeline_id = find::pipeline(channel, pipeline).await?;
    let pipeline_version_id = match version {
        Some(version) => find::version(channel, &pipeline_id, version).await?,
        None => find::version(channel, &pipeline_id, "@last").await?,
    };
    let mut client =
        PipelineServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX);
    let request = pb::GetPipelineRequest {
        pipeline_id: pipeline_id.clone(),
    };
    let found = client.get_pipeline(request).await.map_err(refused)?;
    let name = found.into_inner().display_name;
    let request = pb::GetPipelineVersionRequest {
        pipeline_id: pipeline_id.clone(),
        pipeline_version_id: pipeline_version_id.clone(),
    };
    let found = client
        .get_pipeline_version(request)
        .await
        .map_err(refused)?;
    let Some(document) = found.into_inner().pipeline_spec else {
        bail!("version {pipeline_version_id} of pipeline {name} has no specification");
    };
    Ok(Chosen {
        document: Value::Object(struct_to_map(&document)),
        name,
        stored: Some(pb::PipelineVersionReference {
            pipeline_id,
            pipeline_version_id,
        }),
    })
}

/// The id of the experiment of this name, which is made if there is none.
pub(in crate::cli) async fn experiment(channel: &Channel, name: String) -> anyhow::Result<String> {
    if let Some(found) = find::experiment_named(channel, &name).await? {
        return Ok(found);
    }
    if uuid::Uuid::try_parse(&name).is_ok() {
        return Ok(name);
    }
    let mut client = ExperimentServiceClient::new(channel.clone());
    let request = pb::CreateExperimentRequest {
        experiment: Some(pb::Experiment {
            display_name: name.clone(),
            ..pb::Experiment::default()
        }),
    };
    match client.create_experiment(request).await {
        Ok(made) => Ok(made.into_inner().experiment_id),
        // Somebody else made it in this moment.
        Err(status) if status.code() == Code::AlreadyExists => {
            match find::experiment_named(channel, &name).await? {
                Some(found) => Ok(found),
                None => Err(refused(status)),
            }
        }
        Err(status) => Err(refused(status)),
    }
}
