//! Native gRPC: passed through as it is, trailers included.

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, header};
use ferroflow_service::grpc::Repeatable;
use ferroflow_types::Caller;
use tonic::Status;
use tower::ServiceExt as _;

use crate::authorize::Rules;
use crate::upstream::Upstreams;

/// Whether a request is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind == "application/grpc" || kind.starts_with("application/grpc+"))
}

/// Passes a call on to the service that its path names.
pub(crate) async fn call(
    rules: &Rules,
    upstreams: &Upstreams,
    caller: &Caller,
    mut request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
    let (Some(service), Some(rpc), None) = (parts.next(), parts.next(), parts.next()) else {
        return refused(&Status::unimplemented(format!("{path} is not a method")));
    };
    let Ok(allowed) = rules.allow(caller, &format!("{service}.{rpc}")) else {
        return refused(&Status::unimplemented(format!(
            "{path} is not a known method"
        )));
    };
    let (backend, headers) = match upstreams.open(service, caller) {
        Ok(open) => open,
        Err(status) => return refused(&status),
    };
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::AUTHORIZATION);
    request.headers_mut().extend(headers);
    request.extensions_mut().insert(caller.clone());
    if allowed.repeatable {
        request.extensions_mut().insert(Repeatable);
    }
    match backend.oneshot(request.map(tonic::body::Body::new)).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            tracing::warn!(%error, service, "a service cannot be reached");
            refused(&Status::unavailable(format!("{service} cannot be reached")))
        }
    }
}

/// A status as a gRPC response.
pub(crate) fn refused(status: &Status) -> Response<Body> {
    status.clone().into_http::<Body>()
}
