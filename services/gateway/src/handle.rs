//! One request: hygiene → authenticate → route → authorize → dialect → upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use ferroflow_service::metrics::Metrics;
use ferroflow_service::telemetry;
use tonic::{Code, Status};
use tracing::Instrument as _;

use crate::authenticate::{Authenticator, unauthenticated};
use crate::authorize::{Denied, Rules};
use crate::contracts::Contracts;
use crate::dialect::{self, Dialect};
use crate::hygiene::{self, Hosts};
use crate::route::{self, RouteError, Routes, Rpc, Target};
use crate::transcode::Transcoder;
use crate::upstream::Upstreams;
use crate::{error, pages, prefix, proxy, uploads};

/// What every request is answered from, in the order in which it is asked.
pub(crate) struct Gateway {
    pub(crate) hosts: Hosts,
    pub(crate) authenticator: Authenticator,
    pub(crate) routes: Routes,
    pub(crate) rules: Rules,
    pub(crate) upstreams: Upstreams,
    pub(crate) contracts: Contracts,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) body_max: usize,
    pub(crate) draining: AtomicBool,
}

/// One request: hygiene, who calls, then whoever it is for.
pub(crate) async fn handle(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
) -> Response<Body> {
    // First, so that everything that follows sees one path.
    prefix::strip(request.uri_mut());
    let draining = gateway.draining.load(Ordering::Acquire);
    // Before the host is checked: an orchestrator probes by an address, and has no key.
    if let Some(answer) = pages::probe(request.method(), request.uri().path(), draining) {
        return answer;
    }
    let traceparent = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    let span = tracing::info_span!("http", method = %request.method(), path = request.uri().path());
    if let Some(traceparent) = traceparent {
        telemetry::continue_trace(&span, traceparent);
    }
    // gRPC health checks come by an address as well, like the probes above.
    let is_public = route::native_rpc(&request).is_some_and(|rpc| gateway.rules.is_public(&rpc));
    let checked = gateway
        .hosts
        .check(request.method(), request.uri(), request.headers());
    if let Err((status, message)) = checked
        && !is_public
    {
        hygiene::drain(request.into_body()).await;
        return error::refuse(status, Code::PermissionDenied, &message);
    }
    // Before the caller is looked for: from here on, no header says who it is but that of an API
    // key.
    hygiene::strip_headers(request.headers_mut());
    let begun = std::time::Instant::now();
    let method = method_label(request.method()).to_owned();
    let response = answer(&gateway, request).instrument(span).await;
    let labels = [
        ("method", method),
        ("status", response.status().as_u16().to_string()),
    ];
    metrics::counter!("ferroflow_gateway_requests_total", &labels).increment(1);
    metrics::histogram!("ferroflow_gateway_request_seconds").record(begun.elapsed().as_secs_f64());
    response
}

/// A method as a label. A client may send any word, and each would be a time series for ever.
fn method_label(method: &Method) -> &str {
    let all = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if all.contains(method) {
        method.as_str()
    } else {
        "other"
    }
}

async fn answer(gateway: &Gateway, request: Request) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if let Some(page) = pages::ui(&method, &path) {
        return page;
    }
    let dialect = dialect::for_path(&path);
    // Both are found before either is judged: there are RPCs for callers without a key.
    let caller = gateway.authenticator.caller(request.headers());
    let target = route::target(&gateway.routes, &request);
    let rpc = match (target, &caller) {
        (Ok(Target::Rpc(rpc)), _) => rpc,
        // A caller without a valid key gets 401 before any 404 or 405, so it does not learn which
        // paths there are.
        (_, None) => return denied(gateway, dialect, Denied::Unauthenticated, request).await,
        (Ok(Target::Page(page)), Some(_)) => {
            hygiene::drain(request.into_body()).await;
            let metrics = gateway.metrics.as_ref();
            return page.show(&gateway.contracts, &gateway.routes, metrics);
        }
        (Err(problem), Some(_)) => return unroutable(dialect, &problem, request).await,
    };
    let allowed = match gateway.rules.authorize(caller.as_ref(), &rpc.full_name()) {
        Ok(allowed) => allowed,
        Err(reason) => return denied(gateway, dialect, reason, request).await,
    };
    let Gateway {
        upstreams,
        contracts,
        body_max,
        ..
    } = gateway;
    match rpc {
        Rpc::Native(_) => proxy::call(upstreams, allowed, request).await,
        Rpc::Upload(kind) => uploads::upload(kind, dialect, upstreams, &allowed, request).await,
        Rpc::Rest(found) => {
            let transcoder = Transcoder {
                contracts,
                upstreams,
                dialect,
                body_max: *body_max,
            };
            transcoder.answer(&found, &allowed, request).await
        }
    }
}

/// The answer to a call that may not be made.
async fn denied(
    gateway: &Gateway,
    dialect: &dyn Dialect,
    reason: Denied,
    request: Request,
) -> Response<Body> {
    let native = route::is_grpc(request.headers());
    let status = match reason {
        Denied::Unauthenticated => unauthenticated(),
        // To a client of gRPC, an RPC that cannot be called is one that is not there
        // (UNIMPLEMENTED).
        Denied::NoRule if native => no_method(request.uri().path()),
        Denied::NoRule => Status::permission_denied("there is no rule for this request"),
    };
    // The body of a gRPC call is not read: it may be a stream without end, and over HTTP/2 the
    // connection goes on.
    if native {
        return proxy::refused(&status);
    }
    hygiene::drain(request.into_body()).await;
    dialect.error(&status, &gateway.contracts)
}

fn no_method(path: &str) -> Status {
    Status::unimplemented(format!("{path} is not a known method"))
}

/// The answer to a request that is for nothing.
async fn unroutable(
    dialect: &dyn Dialect,
    problem: &RouteError,
    request: Request,
) -> Response<Body> {
    if route::is_grpc(request.headers()) {
        return proxy::refused(&no_method(request.uri().path()));
    }
    hygiene::drain(request.into_body()).await;
    let (status, code, message) = match problem {
        RouteError::Path => (
            StatusCode::BAD_REQUEST,
            Code::InvalidArgument,
            "the path is not valid",
        ),
        RouteError::Unknown => (StatusCode::NOT_FOUND, Code::NotFound, "Not Found"),
        RouteError::Method(_) => {
            let status = dialect.wrong_method();
            (status, Code::Unimplemented, "Method Not Allowed")
        }
    };
    let mut response = dialect.unroutable(status, code, message);
    if let RouteError::Method(methods) = problem {
        let names: Vec<_> = methods.iter().map(Method::as_str).collect();
        if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
            response.headers_mut().insert(header::ALLOW, names);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_a_client_made_up_is_no_label() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        let made_up = Method::from_bytes(b"X-7F3A").unwrap();
        assert_eq!(method_label(&made_up), "other");
    }
}
