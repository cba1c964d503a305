//! `ExperimentService`.

use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::experiment_service_server::ExperimentService;
use ferroflow_service::grpc::caller;
use ferroflow_service::listing::ListRequest;
use ferroflow_service::request::{invalid, parsed};
use tonic::{Request, Response, Status};

use super::{Api, convert, into_status};
use crate::app::experiments::{self, CreateExperiment};
use crate::domain::run::StorageState;

#[tonic::async_trait]
impl ExperimentService for Api {
    async fn create_experiment(
        &self,
        request: Request<pb::CreateExperimentRequest>,
    ) -> Result<Response<pb::Experiment>, Status> {
        let caller = caller(&request)?;
        let experiment = request.into_inner().experiment;
        let given = experiment.ok_or_else(|| invalid("experiment", "Experiment is missing"))?;
        let create = CreateExperiment {
            display_name: given.display_name,
            description: given.description,
            namespace: given.namespace,
        };
        let made = experiments::create_experiment(&self.ctx, &caller, create)
            .await
            .map_err(into_status)?;
        Ok(Response::new(convert::experiment(&made)))
    }

    async fn get_experiment(
        &self,
        request: Request<pb::GetExperimentRequest>,
    ) -> Result<Response<pb::Experiment>, Status> {
        let caller = caller(&request)?;
        let id = parsed("experiment_id", &request.get_ref().experiment_id)?;
        let found = experiments::get_experiment(&self.ctx, &caller, id)
            .await
            .map_err(into_status)?;
        Ok(Response::new(convert::experiment(&found)))
    }

    async fn list_experiments(
        &self,
        request: Request<pb::ListExperimentsRequest>,
    ) -> Result<Response<pb::ListExperimentsResponse>, Status> {
        let caller = caller(&request)?;
        let pb::ListExperimentsRequest {
            page_token,
            page_size,
            sort_by,
            filter,
            namespace,
        } = request.into_inner();
        let list = ListRequest {
            page_token,
            page_size,
            sort_by,
            filter,
        };
        let page = experiments::list_experiments(&self.ctx, &caller, &namespace, &list)
            .await
            .map_err(into_status)?;
        Ok(Response::new(pb::ListExperimentsResponse {
            experiments: page.entries.iter().map(convert::experiment).collect(),
            next_page_token: page.next.unwrap_or_default(),
            total_size: i32::try_from(page.total).unwrap_or(i32::MAX),
        }))
    }

    async fn archive_experiment(
        &self,
        request: Request<pb::ArchiveExperimentRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let id = parsed("experiment_id", &request.get_ref().experiment_id)?;
        let result = experiments::set_storage(&self.ctx, &caller, id, StorageState::Archived).await;
        result.map(Response::new).map_err(into_status)
    }

    async fn unarchive_experiment(
        &self,
        request: Request<pb::UnarchiveExperimentRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let id = parsed("experiment_id", &request.get_ref().experiment_id)?;
        let result =
            experiments::set_storage(&self.ctx, &caller, id, StorageState::Available).await;
        result.map(Response::new).map_err(into_status)
    }

    async fn delete_experiment(
        &self,
        request: Request<pb::DeleteExperimentRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = caller(&request)?;
        let id = parsed("experiment_id", &request.get_ref().experiment_id)?;
        experiments::delete_experiment(&self.ctx, &caller, id)
            .await
            .map(Response::new)
            .map_err(into_status)
    }
}
