//! What every call passes before it reaches a service: identity, trace, panics, metrics.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::Instant;

use ferroflow_types::Error;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::call_metrics::{Call, CountedBody};
use crate::identity::{self, Verifier};
use crate::status::to_status;
use crate::telemetry;

/// Orchestrators ask without an identity, and learn nothing but whether the service is up.
const PUBLIC_SERVICE: &str = "grpc.health.v1.Health";

/// Lets only verified callers in; measures and traces what they call.
#[derive(Clone)]
pub(super) struct AuthLayer {
    verifier: Verifier,
}

impl AuthLayer {
    pub(super) fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService {
            inner,
            verifier: self.verifier.clone(),
        }
    }
}

#[derive(Clone)]
pub(super) struct AuthService<S> {
    inner: S,
    verifier: Verifier,
}

impl<S> AuthService<S> {
    /// Puts the caller into the request, or says why not.
    fn authenticate(&self, call: &Call, request: &mut Request<Body>) -> Result<(), Status> {
        if call.service == PUBLIC_SERVICE {
            return Ok(());
        }
        let token = text(request.headers(), identity::HEADER).unwrap_or_default();
        match self.verifier.verify(token) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Ok(())
            }
            Err(error) => {
                let (service, method) = (&call.service, &call.method);
                tracing::warn!(service, method, %error, "a call without a valid identity");
                let problem = "the call carries no valid identity";
                Err(Status::unauthenticated(problem))
            }
        }
    }
}

impl<S> Service<Request<Body>> for AuthService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = Call::new(request.uri().path());
        let span = tracing::info_span!("grpc", service = call.service, method = call.method);
        if let Some(traceparent) = text(request.headers(), "traceparent") {
            telemetry::continue_trace(&span, traceparent);
        }
        if let Err(status) = self.authenticate(&call, &mut request) {
            return Box::pin(async move { Ok(with_call_metrics(call, status.into_http())) });
        }
        // tower allows a call only of the instance whose `poll_ready` has returned; a clone is not
        // ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let answer = async move {
            let begun = Instant::now();
            // A panic becomes the error of this call; the connection and its other calls go on.
            let answer = AssertUnwindSafe(async move { inner.call(request).await });
            let response = match answer.catch_unwind().await {
                Ok(answer) => answer?,
                Err(panic) => panic_status(panic.as_ref()).into_http(),
            };
            call.record_latency(&response, begun.elapsed());
            Ok(with_call_metrics(call, response))
        };
        Box::pin(answer.instrument(span))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn with_call_metrics(call: Call, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let body = CountedBody::new(call, &parts.headers, body);
    Response::from_parts(parts, Body::new(body))
}

/// A panic is a defect of ours: logged with what it said, told as an internal error.
pub(super) fn panic_status(panic: &(dyn Any + Send)) -> Status {
    let panic_message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("something that is no text");
    to_status(&Error::internal(
        "a call panicked",
        panic_message.to_owned(),
    ))
}
