//! The service of `echo.proto`, behind a UNIX socket: it answers with what it was asked.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use bytes::{Buf as _, BufMut as _, Bytes};
use ferroflow_proto::google::api::HttpBody;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use prost::Message as _;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, ServerStreamingService};

/// What the service was asked.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) rpc: String,
    pub(crate) headers: HeaderMap,
    pub(crate) message: Bytes,
}

/// How the next calls are answered, beside the echo.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponsePlan {
    /// The end of the answer.
    pub(crate) status: Option<Status>,
    /// What comes before the answer.
    pub(crate) delay: Duration,
    /// How many messages a stream has.
    pub(crate) count: usize,
    /// What each message is, where it is an HttpBody.
    pub(crate) content_type: String,
    pub(crate) piece: Vec<u8>,
}

/// The service.
#[derive(Clone, Default)]
pub(crate) struct Echo {
    calls: Arc<Mutex<Vec<Call>>>,
    plan: Arc<Mutex<ResponsePlan>>,
    /// Messages of streams that were made.
    pub(crate) made: Arc<AtomicUsize>,
}

impl Echo {
    pub(crate) fn plan(&self, plan: ResponsePlan) {
        *self.plan.lock().unwrap() = plan;
    }

    /// What it was asked since the last time.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn answer(&self, call: &Call) -> BoxStream<'static, Result<Bytes, Status>> {
        let plan = self.plan.lock().unwrap().clone();
        let body = matches!(call.rpc.as_str(), "Download" | "Blob");
        let streams = matches!(call.rpc.as_str(), "Download" | "Stream");
        let message = if body {
            let body = HttpBody {
                content_type: plan.content_type.clone(),
                data: plan.piece.clone(),
                extensions: Vec::new(),
            };
            body.encode_to_vec().into()
        } else {
            call.message.clone()
        };
        let count = match (streams, &plan.status) {
            (true, _) => plan.count,
            (false, Some(_)) => 0,
            (false, None) => 1,
        };
        let made = Arc::clone(&self.made);
        let messages = stream::iter(0..count).map(move |_| {
            made.fetch_add(1, Ordering::SeqCst);
            Ok(message.clone())
        });
        let end = stream::iter(plan.status.map(Err));
        let answer = messages.chain(end);
        // A timer of no time would take until the next millisecond.
        if plan.delay.is_zero() {
            return answer.boxed();
        }
        let delay = stream::once(tokio::time::sleep(plan.delay)).filter_map(async |()| None);
        delay.chain(answer).boxed()
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "echo.v1.Echo";
}

impl tower::Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let name = request.uri().path().rsplit('/').next();
        let rpc = name.unwrap_or_default().to_owned();
        let method = EchoMethod {
            echo: self.clone(),
            rpc,
        };
        Box::pin(async move { Ok(Grpc::new(RawCodec).server_streaming(method, request).await) })
    }
}

struct EchoMethod {
    echo: Echo,
    rpc: String,
}

impl ServerStreamingService<Bytes> for EchoMethod {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let call = Call {
            rpc: self.rpc.clone(),
            headers: request.metadata().clone().into_headers(),
            message: request.into_inner(),
        };
        let answer = self.echo.answer(&call);
        self.echo.calls.lock().unwrap().push(call);
        Box::pin(async move { Ok(tonic::Response::new(answer)) })
    }
}

/// A message that is bytes already.
#[derive(Clone, Copy)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = source.remaining();
        Ok(Some(source.copy_to_bytes(length)))
    }
}

/// The contract of the service, with its imports.
pub(crate) fn descriptors() -> Vec<u8> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let includes = [package.join("tests/it"), package.join("../../proto")];
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler
        .include_imports(true)
        .open_file("echo.proto")
        .unwrap();
    compiler.encode_file_descriptor_set()
}
