//! Counts calls by how they ended, which is known at the end of an answer only: gRPC has its status
//! in the trailers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;

use super::auth::panic_status;

/// Which method was called.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) service: String,
    pub(super) method: String,
}

impl Call {
    pub(super) fn new(path: &str) -> Self {
        let (service, method) = path
            .trim_start_matches('/')
            .split_once('/')
            .unwrap_or_default();
        Self {
            service: service.to_owned(),
            method: method.to_owned(),
        }
    }

    /// Labels that callers cannot make more and more of: a method that is not there has no name.
    fn labels(&self, code: Code) -> (String, String) {
        match code {
            Code::Unimplemented | Code::Unauthenticated => ("other".to_owned(), "other".to_owned()),
            _ => (self.service.clone(), self.method.clone()),
        }
    }

    /// How long it took until the answer began.
    pub(super) fn record_latency<B>(&self, response: &Response<B>, latency: Duration) {
        let (service, method) = self.labels(code(response.headers()).unwrap_or(Code::Ok));
        metrics::histogram!("ferroflow_grpc_request_seconds",
            "service" => service, "method" => method)
        .record(latency.as_secs_f64());
    }

    fn count(&self, code: Code) {
        let (service, method) = self.labels(code);
        metrics::counter!("ferroflow_grpc_requests_total",
            "service" => service, "method" => method, "code" => code_name(code))
        .increment(1);
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(
        headers.get(Status::GRPC_STATUS)?.as_bytes(),
    ))
}

/// The body of an answer. It counts the call when it is over, and turns a panic in the middle of a
/// stream into the end that a client understands.
pub(super) struct CountedBody {
    body: Body,
    span: Span,
    /// Taken when the call was counted.
    call: Option<Call>,
    panicked: bool,
}

impl CountedBody {
    pub(super) fn new(call: Call, headers: &HeaderMap, body: Body) -> Self {
        let mut counted = Self {
            body,
            span: Span::current(),
            call: Some(call),
            panicked: false,
        };
        // A call that fails before it begins to answer says so at once and has no body.
        if let Some(code) = code(headers) {
            counted.record_end(code);
        }
        counted
    }

    fn record_end(&mut self, code: Code) {
        if let Some(call) = self.call.take() {
            call.count(code);
        }
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.panicked {
            return Poll::Ready(None);
        }
        // The future of the call has returned by now, and with it the span that it was in.
        let polled = this.span.in_scope(|| {
            let poll = AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx));
            catch_unwind(poll).map_err(|panic| panic_status(panic.as_ref()))
        });
        let polled = match polled {
            Ok(polled) => ready!(polled),
            Err(status) => {
                this.panicked = true;
                let mut trailers = HeaderMap::new();
                // This does not fail: the texts are ours and fit into headers.
                status.add_header(&mut trailers)?;
                Some(Ok(Frame::trailers(trailers)))
            }
        };
        match &polled {
            None => this.record_end(Code::Ok),
            Some(Err(status)) => this.record_end(status.code()),
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    this.record_end(code);
                }
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.panicked || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        // The client is gone or has cancelled the call, unless the end was counted before.
        self.record_end(Code::Cancelled);
    }
}

/// The name of a code as google.rpc.Code has it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
