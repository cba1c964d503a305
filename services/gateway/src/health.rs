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

/// The version of KFP's API whose page is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1beta1,
    V2beta1,
}

impl Version {
    /// The version whose page is at a path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/apis/v1beta1/healthz" => Some(Self::V1beta1),
            "/apis/v2beta1/healthz" => Some(Self::V2beta1),
            _ => None,
        }
    }
}

/// The page of a version.
pub(crate) fn page(version: Version) -> Value {
    // A client of the SDK asks for `multi_user` first. Where it is true, the client takes its
    // namespace from a file that pods have.
    let mut page = json!({
        "commit_sha": COMMIT, "tag_name": env!("CARGO_PKG_VERSION"), "multi_user": false,
    });
    // As upstream, whose page of v1beta1 has no such field.
    if version == Version::V2beta1 {
        page["pipeline_store"] = json!(STORE);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_page_says_where_pipelines_are() {
        let store = |path| page(Version::of(path).unwrap())["pipeline_store"].clone();
        assert_eq!(store("/apis/v2beta1/healthz"), "database");
        assert_eq!(store("/apis/v1beta1/healthz"), Value::Null);
        assert_eq!(Version::of("/healthz"), None);
    }
}
