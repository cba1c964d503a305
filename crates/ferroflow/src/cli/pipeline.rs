//! `ferroflow pipeline`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::pipeline_service_client::PipelineServiceClient;
use ferroflow_proto::pipelines::v1::upload_service_client::UploadServiceClient;
use ferroflow_proto::pipelines::v1::{UploadPipelineRequest, UploadPipelineVersionRequest};

use super::output::{line, refused, show, table, time};
use super::{Channel, Global, connect};

const PACKAGE: &str = "kubeflow.pipelines.backend.api.v2beta1";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Upload a compiled pipeline (.yaml, .json, .zip, .tar.gz).
    Upload(Upload),
    /// List pipelines, newest first.
    List {
        /// How many.
        #[arg(long, default_value = "20")]
        limit: i32,
    },
    /// Show a pipeline and its versions.
    Get {
        /// Its id.
        pipeline_id: String,
    },
    /// Delete a pipeline.
    Delete {
        /// Its id.
        pipeline_id: String,
        /// Delete its versions as well.
        #[arg(long)]
        cascade: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Upload {
    /// The file.
    file: PathBuf,
    /// Its name [default: the file's name].
    #[arg(long)]
    name: Option<String>,
    /// A description.
    #[arg(long, default_value = "")]
    description: String,
    /// Add a version to this pipeline instead of making a new one.
    #[arg(long, value_name = "PIPELINE_ID")]
    version_of: Option<String>,
}

async fn upload(channel: Channel, upload: Upload, global: &Global) -> anyhow::Result<ExitCode> {
    let Upload {
        file,
        name,
        description,
        version_of,
    } = upload;
    let content =
        std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let filename = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let (filename, name) = (filename.unwrap_or_default(), name.unwrap_or_default());
    let mut client = UploadServiceClient::new(channel);
    if let Some(pipeline_id) = version_of {
        let request = UploadPipelineVersionRequest {
            filename,
            content,
            name,
            description,
            pipeline_id,
            ..UploadPipelineVersionRequest::default()
        };
        let made = client
            .upload_pipeline_version(request)
            .await
            .map_err(refused)?
            .into_inner();
        show(
            global.output,
            &format!("{PACKAGE}.PipelineVersion"),
            &made,
            || {
                line(&format!(
                    "version {} ({})",
                    made.pipeline_version_id, made.name
                ));
            },
        )?;
    } else {
        let request = UploadPipelineRequest {
            filename,
            content,
            name,
            description,
            ..UploadPipelineRequest::default()
        };
        let made = client
            .upload_pipeline(request)
            .await
            .map_err(refused)?
            .into_inner();
        show(global.output, &format!("{PACKAGE}.Pipeline"), &made, || {
            line(&format!("pipeline {} ({})", made.pipeline_id, made.name));
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    let channel = connect(global).await?;
    let mut client = PipelineServiceClient::new(channel.clone());
    match command {
        Command::Upload(upload) => return self::upload(channel, upload, global).await,
        Command::List { limit } => {
            let request = pb::ListPipelinesRequest {
                page_size: limit,
                sort_by: "created_at desc".to_owned(),
                ..pb::ListPipelinesRequest::default()
            };
            let list = client
                .list_pipelines(request)
                .await
                .map_err(refused)?
                .into_inner();
            show(
                global.output,
                &format!("{PACKAGE}.ListPipelinesResponse"),
                &list,
                || {
                    let rows = list.pipelines.iter().map(|pipeline| {
                        vec![
                            pipeline.pipeline_id.clone(),
                            pipeline.display_name.clone(),
                            time(pipeline.created_at.as_ref()),
                        ]
                    });
                    table(&["ID", "NAME", "CREATED (UTC)"], rows.collect());
                },
            )?;
        }
        Command::Get { pipeline_id } => get(&mut client, pipeline_id, global).await?,
        Command::Delete {
            pipeline_id,
            cascade,
        } => {
            let request = pb::DeletePipelineRequest {
                pipeline_id: pipeline_id.clone(),
                cascade,
            };
            client.delete_pipeline(request).await.map_err(refused)?;
            line(&format!("pipeline {pipeline_id} is deleted"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(
    client: &mut PipelineServiceClient<Channel>,
    pipeline_id: String,
    global: &Global,
) -> anyhow::Result<()> {
    let request = pb::GetPipelineRequest {
        pipeline_id: pipeline_id.clone(),
    };
    let found = client
        .get_pipeline(request)
        .await
        .map_err(refused)?
        .into_inner();
    let request = pb::ListPipelineVersionsRequest {
        pipeline_id,
        page_size: 200,
        sort_by: "created_at desc".to_owned(),
        ..pb::ListPipelineVersionsRequest::default()
    };
    let versions = client
        .list_pipeline_versions(request)
        .await
        .map_err(refused)?
        .into_inner();
    show(
        global.output,
        &format!("{PACKAGE}.Pipeline"),
        &found,
        || {
            line(&format!("{}  {}", found.pipeline_id, found.display_name));
            if !found.description.is_empty() {
                line(&found.description);
            }
            let rows = versions.pipeline_versions.iter().map(|version| {
                vec![
                    version.pipeline_version_id.clone(),
                    version.display_name.clone(),
                    time(version.created_at.as_ref()),
                ]
            });
            table(&["VERSION", "NAME", "CREATED (UTC)"], rows.collect());
        },
    )
}
