//! `RecurringRunService`: known to every client, not yet part of this service.

use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::recurring_run_service_server::RecurringRunService;
use ferroflow_service::grpc::caller;
use ferroflow_types::{Error, ErrorKind};
use tonic::{Request, Response, Status};

use super::{Api, failed};

fn refuse<T, R>(request: &Request<T>) -> Result<Response<R>, Status> {
    caller(request)?;
    Err(failed(Error::new(
        ErrorKind::Unimplemented,
        "RECURRING_RUNS_UNSUPPORTED",
        "recurring runs are not supported by this version: create runs from a scheduler of your \
         own, for example cron with `ferroflow run submit`",
    )))
}

#[tonic::async_trait]
impl RecurringRunService for Api {
    async fn create_recurring_run(
        &self,
        request: Request<pb::CreateRecurringRunRequest>,
    ) -> Result<Response<pb::RecurringRun>, Status> {
        refuse(&request)
    }

    async fn get_recurring_run(
        &self,
        request: Request<pb::GetRecurringRunRequest>,
    ) -> Result<Response<pb::RecurringRun>, Status> {
        refuse(&request)
    }

    async fn list_recurring_runs(
        &self,
        request: Request<pb::ListRecurringRunsRequest>,
    ) -> Result<Response<pb::ListRecurringRunsResponse>, Status> {
        refuse(&request)
    }

    async fn enable_recurring_run(
        &self,
        request: Request<pb::EnableRecurringRunRequest>,
    ) -> Result<Response<()>, Status> {
        refuse(&request)
    }

    async fn disable_recurring_run(
        &self,
        request: Request<pb::DisableRecurringRunRequest>,
    ) -> Result<Response<()>, Status> {
        refuse(&request)
    }

    async fn delete_recurring_run(
        &self,
        request: Request<pb::DeleteRecurringRunRequest>,
    ) -> Result<Response<()>, Status> {
        refuse(&request)
    }
}
