//! `UploadService`: compiled pipelines as files.

use ferroflow_proto::kfp::v2beta1::{Pipeline, PipelineVersion};
use ferroflow_proto::pipelines::v1 as pb;
use ferroflow_proto::pipelines::v1::upload_service_server::UploadService;
use ferroflow_service::grpc::caller;
use ferroflow_service::request::parsed;
use tonic::{Request, Response, Status};

use super::{Api, convert, into_status};
use crate::app::pipelines::{self, CreatePipeline};
use crate::app::spec_file::{self, SpecFile};
use crate::app::versions::{self, NewVersion};

async fn read(filename: String, content: Vec<u8>) -> Result<SpecFile, Status> {
    let read = spec_file::read_blocking(move || spec_file::read(&filename, &content));
    read.await.map_err(into_status)
}

#[tonic::async_trait]
impl UploadService for Api {
    async fn upload_pipeline(
        &self,
        request: Request<pb::UploadPipelineRequest>,
    ) -> Result<Response<Pipeline>, Status> {
        let caller = caller(&request)?;
        let given = request.into_inner();
        let file = read(given.filename.clone(), given.content).await?;
        // As upstream, without a name the name of the file is taken, its ending included.
        let named = !given.name.is_empty() || !given.display_name.is_empty();
        let create = CreatePipeline {
            name: if named { given.name } else { given.filename },
            display_name: given.display_name,
            description: given.description,
            namespace: given.namespace,
            tags: given.tags.into_iter().collect(),
            code_source_url: given.code_source_url,
            ..CreatePipeline::default()
        };
        let made = pipelines::create_pipeline(&self.ctx, &caller, create, Some(&file)).await;
        made.map(|made| Response::new(convert::pipeline(&made)))
            .map_err(into_status)
    }

    async fn upload_pipeline_version(
        &self,
        request: Request<pb::UploadPipelineVersionRequest>,
    ) -> Result<Response<PipelineVersion>, Status> {
        let caller = caller(&request)?;
        let given = request.into_inner();
        // The query parameter of KFP is spelled without an underscore.
        let pipeline = parsed("pipelineid", &given.pipeline_id)?;
        let file = read(given.filename.clone(), given.content).await?;
        let named = !given.name.is_empty() || !given.display_name.is_empty();
        let new = NewVersion {
            name: if named { given.name } else { given.filename },
            display_name: given.display_name,
            description: given.description,
            code_source_url: given.code_source_url,
            package_url: String::new(),
            tags: given.tags.into_iter().collect(),
        };
        let made = versions::create_version(&self.ctx, &caller, pipeline, new, &file).await;
        made.map(|made| Response::new(convert::version(&made)))
            .map_err(into_status)
    }
}
