//! `ferroflow pipeline`.

use std::path::PathBuf;
use std::process::ExitCode;

use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::pipelines::v1::{UploadPipelineRequest, UploadPipelineVersionRequest};

use super::output::{bold, line, note, short_ids, show, status_error, time};
use super::table::table;
use super::{Channel, Global, clients, connect, find, spec};

const PACKAGE: &str = "kubeflow.pipelines.backend.api.v2beta1";

pub(super) const EXAMPLES: &str = "\
PIPELINE is a pipeline's name, its id, the first characters of it, or @last for the newest.

Examples:
  ferroflow pipeline upload training.yaml
  ferroflow pipeline upload-version training training.py --name v2
  ferroflow run submit --pipeline training --version v2";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Upload a pipeline.
    Upload(Upload),
    /// Upload a further version of a pipeline.
    UploadVersion(UploadVersion),
    /// List pipelines, newest first.
    List {
        /// How many, at most 200.
        #[arg(long, default_value = "20", value_parser = clap::value_parser!(i32).range(1..=200))]
        limit: i32,
    },
    /// Show a pipeline and its versions.
    Get {
        /// The pipeline: its name, its id, the first characters of it, or @last.
        pipeline: String,
    },
    /// Delete a pipeline.
    Delete {
        /// The pipeline: its name, its id, the first characters of it, or @last.
        pipeline: String,
        /// Delete its versions as well.
        #[arg(long)]
        cascade: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Upload {
    /// A compiled pipeline (.yaml, .json, .zip, .tar.gz), or a Python file with one (.py).
    file: PathBuf,
    #[command(flatten)]
    compiler: spec::Compiler,
    /// What it is called [default: the name in its specification].
    #[arg(long)]
    name: Option<String>,
    /// A description [default: that of its specification].
    #[arg(long)]
    description: Option<String>,
    /// Add a version to this pipeline instead of making a new one.
    #[arg(long, value_name = "PIPELINE", hide = true)]
    version_of: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UploadVersion {
    /// The pipeline: its name, its id, the first characters of it, or @last.
    pipeline: String,
    /// A compiled pipeline (.yaml, .json, .zip, .tar.gz), or a Python file with one (.py).
    file: PathBuf,
    #[command(flatten)]
    compiler: spec::Compiler,
    /// What the version is called [default: the name in its specification and the time].
    #[arg(long)]
    name: Option<String>,
    /// A description [default: that of its specification].
    #[arg(long)]
    description: Option<String>,
}

async fn upload(upload: Upload, global: &Global) -> anyhow::Result<ExitCode> {
    if let Some(pipeline) = upload.version_of {
        let version = UploadVersion {
            pipeline,
            file: upload.file,
            compiler: upload.compiler,
            name: upload.name,
            description: upload.description,
        };
        return upload_version(version, global).await;
    }
    let compiled = upload.compiler.read(&upload.file)?;
    let describe = || spec::description(&compiled.document);
    let request = UploadPipelineRequest {
        name: upload
            .name
            .unwrap_or_else(|| spec::name(&compiled.document)),
        description: upload.description.unwrap_or_else(describe),
        filename: compiled.filename,
        content: compiled.bytes,
        ..UploadPipelineRequest::default()
    };
    let mut client = clients::uploads(&connect(global).await?);
    let made = client
        .upload_pipeline(request)
        .await
        .map_err(status_error)?;
    let made = made.into_inner();
    show(global.output, &format!("{PACKAGE}.Pipeline"), &made, || {
        line(&format!("pipeline {} ({})", made.pipeline_id, made.name));
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn upload_version(upload: UploadVersion, global: &Global) -> anyhow::Result<ExitCode> {
    let compiled = upload.compiler.read(&upload.file)?;
    let channel = connect(global).await?;
    let pipeline_id = find::pipeline(&channel, &upload.pipeline).await?;
    let describe = || spec::description(&compiled.document);
    // Versions of one pipeline need names of their own.
    let usual = || {
        let now = jiff::Zoned::now().strftime("%Y-%m-%d-%H%M%S");
        format!("{}-{now}", spec::name(&compiled.document))
    };
    let request = UploadPipelineVersionRequest {
        name: upload.name.unwrap_or_else(usual),
        description: upload.description.unwrap_or_else(describe),
        filename: compiled.filename,
        content: compiled.bytes,
        pipeline_id,
        ..UploadPipelineVersionRequest::default()
    };
    let mut client = clients::uploads(&channel);
    let made = client
        .upload_pipeline_version(request)
        .await
        .map_err(status_error)?;
    let made = made.into_inner();
    let name = format!("{PACKAGE}.PipelineVersion");
    show(global.output, &name, &made, || {
        line(&format!(
            "version {} ({})",
            made.pipeline_version_id, made.name
        ));
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        // A file that cannot be read is told before a platform that cannot be reached.
        Command::Upload(upload) => return self::upload(upload, global).await,
        Command::UploadVersion(upload) => return upload_version(upload, global).await,
        Command::List { limit } => list(connect(global).await?, limit, global).await?,
        Command::Get { pipeline } => {
            let channel = connect(global).await?;
            let pipeline_id = find::pipeline(&channel, &pipeline).await?;
            get(channel, pipeline_id, global).await?;
        }
        Command::Delete { pipeline, cascade } => {
            let channel = connect(global).await?;
            let pipeline_id = find::pipeline(&channel, &pipeline).await?;
            let request = pb::DeletePipelineRequest {
                pipeline_id: pipeline_id.clone(),
                cascade,
            };
            let mut client = clients::pipelines(&channel);
            let deleted = client.delete_pipeline(request).await;
            deleted.map_err(|status| {
                // The platform names the field of its API; whoever types a command needs the flag.
                if status.message().contains("cascade=true") {
                    anyhow::anyhow!(
                        "pipeline {pipeline_id} has versions: --cascade deletes them as well"
                    )
                } else {
                    status_error(status)
                }
            })?;
            line(&format!("pipeline {pipeline_id} is deleted"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(channel: Channel, limit: i32, global: &Global) -> anyhow::Result<()> {
    let request = pb::ListPipelinesRequest {
        page_size: limit,
        sort_by: "created_at desc".to_owned(),
        ..pb::ListPipelinesRequest::default()
    };
    let mut client = clients::pipelines(&channel);
    let list = client.list_pipelines(request).await.map_err(status_error)?;
    let list = list.into_inner();
    let name = format!("{PACKAGE}.ListPipelinesResponse");
    show(global.output, &name, &list, || {
        if list.pipelines.is_empty() {
            return note("no pipelines");
        }
        let ids = list.pipelines.iter().map(|one| one.pipeline_id.as_str());
        let ids = short_ids(global.output, ids);
        let rows = list.pipelines.iter().zip(ids).map(|(pipeline, id)| {
            vec![
                id,
                pipeline.display_name.clone(),
                time(pipeline.created_at.as_ref()),
            ]
        });
        table(&["ID", "NAME", "CREATED"], rows.collect());
    })
}

async fn get(channel: Channel, pipeline_id: String, global: &Global) -> anyhow::Result<()> {
    let mut client = clients::pipelines(&channel);
    let request = pb::GetPipelineRequest {
        pipeline_id: pipeline_id.clone(),
    };
    let found = client.get_pipeline(request).await.map_err(status_error)?;
    let found = found.into_inner();
    let request = pb::ListPipelineVersionsRequest {
        pipeline_id,
        page_size: 200,
        sort_by: "created_at desc".to_owned(),
        ..pb::ListPipelineVersionsRequest::default()
    };
    let versions = client
        .list_pipeline_versions(request)
        .await
        .map_err(status_error)?;
    let versions = versions.into_inner().pipeline_versions;
    show(
        global.output,
        &format!("{PACKAGE}.Pipeline"),
        &found,
        || {
            line(&format!(
                "{}  {}",
                bold(&found.display_name),
                found.pipeline_id
            ));
            if !found.description.is_empty() {
                line(&found.description);
            }
            let ids = versions.iter().map(|one| one.pipeline_version_id.as_str());
            let ids = short_ids(global.output, ids);
            let rows = versions.iter().zip(ids).map(|(version, id)| {
                vec![
                    id,
                    version.display_name.clone(),
                    time(version.created_at.as_ref()),
                ]
            });
            table(&["VERSION", "NAME", "CREATED"], rows.collect());
        },
    )
}
