//! The health of KFP's API: a gRPC service, and a page that says more than its message can.

use ferroflow_proto::kfp::v2beta1::GetHealthzResponse;
use ferroflow_proto::kfp::v2beta1::healthz_service_server::HealthzService;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

/// The commit that the binary was built from, as KFP's clients ask for it.
const COMMIT: &str = match option_env!("FERROFLOW_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Where pipelines are kept; the other word that KFP knows is `kubernetes`.
const STORE: &str = "database";

/// `HealthzService`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Health;

#[tonic::async_trait]
impl HealthzService for Health {
    async fn get_healthz(
        &self,
        _request: Request<()>,
    ) -> Result<Response<GetHealthzResponse>, Status> {
        Ok(Response::new(GetHealthzResponse {
            multi_user: false,
            pipeline_store: STORE.to_owned(),
        }))
    }
}

/// The page of a path, which KFP answers whatever the method is.
pub(crate) fn page(path: &str) -> Option<Value> {
    let mut page = json!({
        "commit_sha": COMMIT, "tag_name": env!("CARGO_PKG_VERSION"), "multi_user": false,
    });
    match path {
        "/apis/v1beta1/healthz" => {}
        "/apis/v2beta1/healthz" => page["pipeline_store"] = json!(STORE),
        _ => return None,
    }
    Some(page)
}
