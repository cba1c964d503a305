//! `RunService`.

use ferroflow_proto::json::struct_to_map;
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::run::PipelineSource as GivenSource;
use ferroflow_proto::kfp::v2beta1::run_service_server::RunService;
use ferroflow_service::grpc::caller;
use ferroflow_service::listing::ListRequest;
use ferroflow_service::request::{invalid, parsed, parsed_opt, time_opt};
use ferroflow_types::{Caller, RunId};
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::elide::SizeBudget;
use super::{Api, convert, into_status, source};
use crate::app::create_run::{self, CreateRun};
use crate::app::runs;
use crate::domain::run::StorageState;

fn create_of(run: pb::Run) -> Result<CreateRun, Status> {
    let pipeline = match &run.pipeline_source {
        Some(GivenSource::PipelineSpec(spec)) => source::inline("run", spec)?,
        Some(GivenSource::PipelineVersionReference(named)) => source::stored("run", named)?,
        _ => return Err(source::missing("run")),
    };
    let config = run.runtime_config.unwrap_or_default();
    Ok(CreateRun {
        id: parsed_opt("run.run_id", &run.run_id)?,
        display_name: run.display_name,
        description: run.description,
        experiment: parsed_opt("run.experiment_id", &run.experiment_id)?,
        pipeline,
        parameters: source::parameters("run", &config)?,
        pipeline_root: config.pipeline_root,
        service_account: run.service_account,
        scheduled_at: time_opt("run.scheduled_at", run.scheduled_at)?,
    })
}

impl Api {
    async fn set_storage(
        &self,
        caller: &Caller,
        run_id: &str,
        storage: StorageState,
    ) -> Result<Response<()>, Status> {
        let id: RunId = parsed("run_id", run_id)?;
        runs::set_storage(&self.ctx, caller, id, storage)
            .await
            .map(Response::new)
            .map_err(into_status)
    }
}

#[tonic::async_trait]
impl RunService for Api {
    async fn create_run(
        &self,
        request: Request<pb::CreateRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let caller = caller(&request)?;
        let run = request
            .into_inner()
            .run
            .ok_or_else(|| invalid("run", "Run is missing"))?;
        // The answer shows the specification as it was sent.
        let spec = match &run.pipeline_source {
            Some(GivenSource::PipelineSpec(spec)) => Some(Value::Object(struct_to_map(spec))),
            _ => None,
        };
        let made = create_run::create_run(&self.ctx, &caller, create_of(run)?)
            .await
            .map_err(into_status)?;
        Ok(Response::new(convert::run(&made, spec.as_ref())))
    }

    async fn get_run(
        &self,
        request: Request<pb::GetRunRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let caller = caller(&request)?;
        let id = parsed("run_id", &request.get_ref().run_id)?;
        let found = runs::get_run(&self.ctx, &caller, id)
            .await
            .map_err(into_status)?;
        Ok(Response::new(convert::full_run(&found)))
    }

    async fn list_runs(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Result<Response<pb::ListRunsResponse>, Status> {
        let caller = caller(&request)?;
        let pb::ListRunsRequest {
            namespace,
            experiment_id,
            page_token,
            page_size,
            sort_by,
            filter,
        } = request.into_inner();
        let experiment = parsed_opt("experiment_id", &experiment_id)?;
        let list = ListRequest {
            page_token,
            page_size,
            sort_by,
            filter,
        };
        let page = runs::list_runs(&self.ctx, &caller, &namespace, experiment, &list)
            .await
            .map_err(into_status)?;
        let mut budget = SizeBudget::for_list();
        let runs = page.entries.iter();
        Ok(Response::new(pb::ListRunsResponse {
            runs: runs
                .map(|run| convert::listed_run(run, &mut budget))
                .collect(),
            total_size: i32::try_from(page.total).unwrap_or(i32::MAX),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn archive_run(
        &self,
        request: Request<pb::ArchiveRunRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        self.set_storage(&caller, &request.get_ref().run_id, StorageState::Archived)
            .await
    }

    async fn unarchive_run(
        &self,
        request: Request<pb::UnarchiveRunRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        self.set_storage(&caller, &request.get_ref().run_id, StorageState::Available)
            .await
    }

    async fn delete_run(
        &self,
        request: Request<pb::DeleteRunRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let id = parsed("run_id", &request.get_ref().run_id)?;
        runs::delete_run(&self.ctx, &caller, id)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn terminate_run(
        &self,
        request: Request<pb::TerminateRunRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let id = parsed("run_id", &request.get_ref().run_id)?;
        runs::terminate_run(&self.ctx, &caller, id)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn retry_run(
        &self,
        request: Request<pb::RetryRunRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let id = parsed("run_id", &request.get_ref().run_id)?;
        runs::retry_run(&self.ctx, &caller, id)
            .await
            .map(Response::new)
            .map_err(into_status)
    }
}
