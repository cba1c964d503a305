//! `PipelineService`.

use std::collections::HashMap;

use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::pipeline_service_server::PipelineService;
use ferroflow_service::grpc::caller;
use ferroflow_service::listing::ListRequest;
use ferroflow_service::request::{invalid, parsed};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::{Api, convert, into_status};
use crate::app::packages;
use crate::app::pipelines::{self, CreatePipeline};
use crate::app::versions::{self, NewVersion};
use crate::domain::definition::Tags;
use crate::domain::id::PipelineId;

/// The gateway says with this that a request's tags were given and empty, which protobuf cannot.
const CLEAR_TAGS: &str = "x-clear-tags";

fn tags_of(metadata: &MetadataMap, tags: HashMap<String, String>) -> Option<Tags> {
    let given = !tags.is_empty() || metadata.contains_key(CLEAR_TAGS);
    given.then(|| tags.into_iter().collect())
}

/// The URL of a version's package, which there must be: a file is uploaded elsewhere.
fn package_url(given: &pb::PipelineVersion) -> Result<&str, Status> {
    let url = given.package_url.as_ref();
    let url = url.map(|url| url.pipeline_url.as_str()).unwrap_or_default();
    if url.is_empty() {
        let problem = "it is missing; files are uploaded to /apis/v2beta1/pipelines/upload or \
                       /upload_version";
        return Err(invalid(packages::FIELD, problem));
    }
    Ok(url)
}

/// A version belongs to the pipeline in the path; the one in the body may be left out.
fn pipeline_id_of(request: &pb::CreatePipelineVersionRequest) -> Result<PipelineId, Status> {
    let version = request.pipeline_version.as_ref();
    let body = version.map(|version| version.pipeline_id.as_str());
    let body = body.unwrap_or_default();
    let path = request.pipeline_id.as_str();
    if !path.is_empty() && !body.is_empty() && path != body {
        let problem = format!("{body} is not the pipeline of the path, {path}");
        return Err(invalid("pipeline_version.pipeline_id", problem));
    }
    parsed("pipeline_id", if path.is_empty() { body } else { path })
}

#[tonic::async_trait]
impl PipelineService for Api {
    async fn create_pipeline(
        &self,
        request: Request<pb::CreatePipelineRequest>,
    ) -> Result<Response<pb::Pipeline>, Status> {
        let caller = caller(&request)?;
        let pipeline = request.into_inner().pipeline;
        let given = pipeline.ok_or_else(|| invalid("pipeline", "Pipeline is missing"))?;
        let create = CreatePipeline {
            name: given.name,
            display_name: given.display_name,
            description: given.description,
            namespace: given.namespace,
            tags: given.tags.into_iter().collect(),
            ..CreatePipeline::default()
        };
        let made = pipelines::create_pipeline(&self.ctx, &caller, create, None)
            .await
            .map_err(into_status)?;
        Ok(Response::new(convert::pipeline(&made)))
    }

    async fn get_pipeline(
        &self,
        request: Request<pb::GetPipelineRequest>,
    ) -> Result<Response<pb::Pipeline>, Status> {
        let caller = caller(&request)?;
        let id = parsed("pipeline_id", &request.get_ref().pipeline_id)?;
        let found = pipelines::get_pipeline(&self.ctx, &caller, id)
            .await
            .map_err(into_status)?;
        Ok(Response::new(convert::pipeline(&found)))
    }

    async fn get_pipeline_by_name(
        &self,
        request: Request<pb::GetPipelineByNameRequest>,
    ) -> Result<Response<pb::Pipeline>, Status> {
        let caller = caller(&request)?;
        let pb::GetPipelineByNameRequest { namespace, name } = request.into_inner();
        let found = pipelines::get_pipeline_by_name(&self.ctx, &caller, &namespace, &name).await;
        found
            .map(|found| Response::new(convert::pipeline(&found)))
            .map_err(into_status)
    }

    async fn list_pipelines(
        &self,
        request: Request<pb::ListPipelinesRequest>,
    ) -> Result<Response<pb::ListPipelinesResponse>, Status> {
        let caller = caller(&request)?;
        let pb::ListPipelinesRequest {
            namespace,
            page_token,
            page_size,
            sort_by,
            filter,
        } = request.into_inner();
        let list = ListRequest {
            page_token,
            page_size,
            sort_by,
            filter,
        };
        let page = pipelines::list_pipelines(&self.ctx, &caller, &namespace, &list)
            .await
            .map_err(into_status)?;
        Ok(Response::new(pb::ListPipelinesResponse {
            pipelines: page.entries.iter().map(convert::pipeline).collect(),
            total_size: i32::try_from(page.total).unwrap_or(i32::MAX),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn delete_pipeline(
        &self,
        request: Request<pb::DeletePipelineRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let pb::DeletePipelineRequest {
            pipeline_id,
            cascade,
        } = request.into_inner();
        let id = parsed("pipeline_id", &pipeline_id)?;
        pipelines::delete_pipeline(&self.ctx, &caller, id, cascade)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn create_pipeline_and_version(
        &self,
        request: Request<pb::CreatePipelineAndVersionRequest>,
    ) -> Result<Response<pb::Pipeline>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let given = request.pipeline;
        let given = given.ok_or_else(|| invalid("pipeline", "Pipeline is missing"))?;
        let version = request.pipeline_version;
        let version =
            version.ok_or_else(|| invalid("pipeline_version", "PipelineVersion is missing"))?;
        let url = package_url(&version)?;
        // Nothing is fetched for a namespace that is not the caller's.
        caller.namespace(&given.namespace).map_err(into_status)?;
        let package = self.ctx.packages.fetch(url).await.map_err(into_status)?;
        let named = !given.name.is_empty() || !given.display_name.is_empty();
        // As upstream, the first version is called and described as the pipeline is.
        let create = CreatePipeline {
            name: if named { given.name } else { package.name },
            display_name: given.display_name,
            description: given.description,
            namespace: given.namespace,
            tags: given.tags.into_iter().collect(),
            package_url: url.to_owned(),
            code_source_url: version.code_source_url,
            version_tags: version.tags.into_iter().collect(),
        };
        let made =
            pipelines::create_pipeline(&self.ctx, &caller, create, Some(&package.file)).await;
        made.map(|made| Response::new(convert::pipeline(&made)))
            .map_err(into_status)
    }

    async fn create_pipeline_version(
        &self,
        request: Request<pb::CreatePipelineVersionRequest>,
    ) -> Result<Response<pb::PipelineVersion>, Status> {
        let caller = caller(&request)?;
        let pipeline = pipeline_id_of(request.get_ref())?;
        let given = request.into_inner().pipeline_version;
        let given =
            given.ok_or_else(|| invalid("pipeline_version", "PipelineVersion is missing"))?;
        let url = package_url(&given)?;
        // Nothing is fetched for a pipeline that is not there.
        pipelines::get_pipeline(&self.ctx, &caller, pipeline)
            .await
            .map_err(into_status)?;
        let package = self.ctx.packages.fetch(url).await.map_err(into_status)?;
        let new = NewVersion {
            package_url: url.to_owned(),
            name: given.name,
            display_name: given.display_name,
            description: given.description,
            code_source_url: given.code_source_url,
            tags: given.tags.into_iter().collect(),
        };
        let made = versions::create_version(&self.ctx, &caller, pipeline, new, &package.file).await;
        made.map(|made| Response::new(convert::version(&made)))
            .map_err(into_status)
    }

    async fn get_pipeline_version(
        &self,
        request: Request<pb::GetPipelineVersionRequest>,
    ) -> Result<Response<pb::PipelineVersion>, Status> {
        let caller = caller(&request)?;
        // As upstream, the version's id alone says which one it is.
        let id = parsed(
            "pipeline_version_id",
            &request.get_ref().pipeline_version_id,
        )?;
        let found = versions::get_version(&self.ctx, &caller, id)
            .await
            .map_err(into_status)?;
        Ok(Response::new(convert::version(&found)))
    }

    async fn list_pipeline_versions(
        &self,
        request: Request<pb::ListPipelineVersionsRequest>,
    ) -> Result<Response<pb::ListPipelineVersionsResponse>, Status> {
        let caller = caller(&request)?;
        let pb::ListPipelineVersionsRequest {
            pipeline_id,
            page_token,
            page_size,
            sort_by,
            filter,
        } = request.into_inner();
        let id = parsed("pipeline_id", &pipeline_id)?;
        let list = ListRequest {
            page_token,
            page_size,
            sort_by,
            filter,
        };
        let page = versions::list_versions(&self.ctx, &caller, id, &list)
            .await
            .map_err(into_status)?;
        Ok(Response::new(pb::ListPipelineVersionsResponse {
            pipeline_versions: page.entries.iter().map(convert::version).collect(),
            next_page_token: page.next.unwrap_or_default(),
            total_size: i32::try_from(page.total).unwrap_or(i32::MAX),
        }))
    }

    async fn delete_pipeline_version(
        &self,
        request: Request<pb::DeletePipelineVersionRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let id = parsed(
            "pipeline_version_id",
            &request.get_ref().pipeline_version_id,
        )?;
        versions::delete_version(&self.ctx, &caller, id)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn update_pipeline(
        &self,
        request: Request<pb::UpdatePipelineRequest>,
    ) -> Result<Response<pb::Pipeline>, Status> {
        let caller = caller(&request)?;
        let (metadata, _, message) = request.into_parts();
        let given = message
            .pipeline
            .ok_or_else(|| invalid("pipeline", "Pipeline is missing"))?;
        let id = parsed("pipeline.pipeline_id", &given.pipeline_id)?;
        let tags = tags_of(&metadata, given.tags);
        let updated =
            pipelines::update_pipeline(&self.ctx, &caller, id, given.display_name, tags).await;
        updated
            .map(|updated| Response::new(convert::pipeline(&updated)))
            .map_err(into_status)
    }

    async fn update_pipeline_version(
        &self,
        request: Request<pb::UpdatePipelineVersionRequest>,
    ) -> Result<Response<pb::PipelineVersion>, Status> {
        let caller = caller(&request)?;
        let (metadata, _, message) = request.into_parts();
        let given = message.pipeline_version;
        let given =
            given.ok_or_else(|| invalid("pipeline_version", "PipelineVersion is missing"))?;
        let id = parsed(
            "pipeline_version.pipeline_version_id",
            &given.pipeline_version_id,
        )?;
        let tags = tags_of(&metadata, given.tags);
        let updated =
            versions::update_version(&self.ctx, &caller, id, given.display_name, tags).await;
        updated
            .map(|updated| Response::new(convert::version(&updated)))
            .map_err(into_status)
    }
}
