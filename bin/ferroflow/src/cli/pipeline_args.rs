//! Which pipeline `run submit` and `recurring-run create` run: one in a file, or an uploaded one.

use std::path::PathBuf;

use anyhow::bail;
use ferroflow_proto::json::{from_json, struct_to_map};
use ferroflow_proto::kfp::v2beta1 as pb;
use serde_json::{Map, Value};

use super::output::status_error;
use super::{Channel, clients, find, spec};

/// How it is named.
#[derive(Debug, clap::Args)]
pub(super) struct PipelineArgs {
    /// A pipeline compiled by the kfp SDK (.yaml, .json, or a .zip or .tar.gz with one), or a Python
    /// file with one pipeline (.py), which is compiled first.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    compiler: spec::Compiler,
    /// An uploaded pipeline instead of a file: its name, its id or the first characters of it.
    #[arg(long, value_name = "PIPELINE", conflicts_with = "file")]
    pipeline: Option<String>,
}

/// What is run: its documents, and the stored version that they are of.
pub(super) struct SelectedPipeline {
    pub(super) document: Value,
    pub(super) name: String,
    pub(super) stored: Option<pb::PipelineVersionReference>,
}

impl PipelineArgs {
    /// The pipeline in a file, if one is named: what is wrong with it is told before the platform is
    /// asked for anything.
    pub(super) fn read(&self) -> anyhow::Result<Option<SelectedPipeline>> {
        let Some(file) = &self.file else {
            if self.pipeline.is_none() {
                bail!(
                    "nothing to run is named: give a FILE with a pipeline, or --pipeline for an uploaded one"
                );
            }
            return Ok(None);
        };
        let document = self.compiler.read(file)?.document;
        Ok(Some(SelectedPipeline {
            name: spec::name(&document),
            document,
            stored: None,
        }))
    }

    /// The uploaded pipeline that is named, in its newest version unless one is named.
    pub(super) async fn fetch_stored(
        &self,
        channel: &Channel,
        version: Option<&str>,
    ) -> anyhow::Result<SelectedPipeline> {
        let Some(pipeline) = &self.pipeline else {
            bail!("--pipeline is not given");
        };
        fetch_stored(channel, pipeline, version).await
    }
}

/// Parameters as runs and recurring runs take them.
pub(super) fn config(parameters: &Map<String, Value>) -> pb::RuntimeConfig {
    let parameters = parameters
        .iter()
        .map(|(name, value)| (name.clone(), from_json(value)));
    pb::RuntimeConfig {
        parameters: parameters.collect(),
        ..pb::RuntimeConfig::default()
    }
}

/// A version of an uploaded pipeline, the newest unless one is named.
async fn fetch_stored(
    channel: &Channel,
    pipeline: &str,
    version: Option<&str>,
) -> anyhow::Result<SelectedPipeline> {
    let pipeline_id = find::pipeline(channel, pipeline).await?;
    let pipeline_version_id = match version {
        Some(version) => find::version(channel, &pipeline_id, version).await?,
        None => find::version(channel, &pipeline_id, "@last").await?,
    };
    let mut client = clients::pipelines(channel);
    let request = pb::GetPipelineRequest {
        pipeline_id: pipeline_id.clone(),
    };
    let found = client.get_pipeline(request).await.map_err(status_error)?;
    let name = found.into_inner().display_name;
    let request = pb::GetPipelineVersionRequest {
        pipeline_id: pipeline_id.clone(),
        pipeline_version_id: pipeline_version_id.clone(),
    };
    let found = client
        .get_pipeline_version(request)
        .await
        .map_err(status_error)?;
    let Some(document) = found.into_inner().pipeline_spec else {
        bail!("version {pipeline_version_id} of pipeline {name} has no specification");
    };
    Ok(SelectedPipeline {
        document: Value::Object(struct_to_map(&document)),
        name,
        stored: Some(pb::PipelineVersionReference {
            pipeline_id,
            pipeline_version_id,
        }),
    })
}
