//! Calls of RPCs with encoded requests.

use axum::http::HeaderMap;
use bytes::{Buf as _, BufMut as _, Bytes};
use ferroflow_service::grpc::Idempotent;
use ferroflow_types::ValueLimit;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use crate::authorize::AuthorizedCall;
use crate::error::defect;
use crate::upstream::{Upstreams, unreachable};

/// A message that is bytes already.
#[derive(Debug, Clone, Copy, Default)]
struct RawCodec;

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

/// Calls an RPC with an encoded request; the answer is a stream of encoded messages.
pub(crate) async fn stream(
    upstreams: &Upstreams,
    allowed: &AuthorizedCall,
    request: Bytes,
    extra: HeaderMap,
) -> Result<tonic::Response<Streaming<Bytes>>, Status> {
    let AuthorizedCall { caller, method, .. } = allowed;
    let service = method.parent_service().full_name().to_owned();
    let (backend, mut headers) = upstreams.backend_for(&service, caller)?;
    headers.extend(extra);
    let path = format!("/{service}/{}", method.name());
    let path = path
        .parse()
        .map_err(|_| defect("a method's name is not a path"))?;
    // tonic's own limit is 4 MiB, less than one value may have.
    let mut client = Grpc::new(backend).max_decoding_message_size(ValueLimit::MESSAGE_MAX);
    let ready = client.ready().await;
    ready.map_err(|error| unreachable(&service, &error))?;
    let mut request = tonic::Request::new(futures::stream::iter([request]));
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    // For services of the gateway itself, as in `proxy::call`.
    request.extensions_mut().insert(caller.clone());
    if allowed.idempotent {
        request.extensions_mut().insert(Idempotent);
    }
    // On the wire, a unary call is a stream of one message each way, so this makes every call.
    let answer = client.streaming(request, path, RawCodec).await;
    answer.map_err(|status| service_status(status, &service))
}

/// The status that the service gave, or what the caller learns of a transport error.
fn service_status(status: Status, service: &str) -> Status {
    // tonic turns an error of the transport into a status, and keeps the error as its source.
    let source = std::error::Error::source(&status);
    match source.and_then(|source| source.downcast_ref()) {
        Some(error) => unreachable(service, error),
        None => status,
    }
}

/// Calls a unary RPC with an encoded request.
pub(crate) async fn unary(
    upstreams: &Upstreams,
    allowed: &AuthorizedCall,
    request: Bytes,
    extra: HeaderMap,
) -> Result<Bytes, Status> {
    let call = stream(upstreams, allowed, request, extra).await?;
    let mut messages = call.into_inner();
    let first = messages.message().await?;
    // The status comes in the trailers, so a call may still fail after its message.
    while messages.message().await?.is_some() {}
    first.ok_or_else(|| defect("a service sent no message"))
}
