//! Native gRPC: passed through as it is, trailers included.

use axum::body::Body;
use axum::http::{Request, Response, header};
use ferroflow_service::grpc::Idempotent;
use tonic::Status;
use tower::ServiceExt as _;

use crate::authorize::AuthorizedCall;
use crate::upstream::{Upstreams, unreachable};

/// Passes a call on to its service.
pub(crate) async fn call(
    upstreams: &Upstreams,
    allowed: AuthorizedCall,
    mut request: Request<Body>,
) -> Response<Body> {
    let service = allowed.method.parent_service();
    let service = service.full_name();
    let (backend, headers) = match upstreams.backend_for(service, &allowed.caller) {
        Ok(found) => found,
        Err(status) => return refused(&status),
    };
    // The backend has an authority of its own, and the API key is for the gateway only.
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::AUTHORIZATION);
    request.headers_mut().extend(headers);
    // For services of the gateway itself, in front of which nothing verifies a token (`events`).
    // Extensions do not leave the process.
    request.extensions_mut().insert(allowed.caller);
    if allowed.idempotent {
        request.extensions_mut().insert(Idempotent);
    }
    match backend.oneshot(request.map(tonic::body::Body::new)).await {
        Ok(response) => response.map(Body::new),
        Err(error) => refused(&unreachable(service, &error)),
    }
}

/// A status as a gRPC response.
pub(crate) fn refused(status: &Status) -> Response<Body> {
    status.clone().into_http::<Body>()
}
