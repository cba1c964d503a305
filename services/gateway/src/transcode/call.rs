//! One transcoded call: bind, call, answer.

use axum::body::Body;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use ferroflow_service::grpc::Repeatable;
use ferroflow_types::{Caller, ValueLimit, json};
use futures::StreamExt as _;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use super::bind::{Mode, bind};
use super::routes::{Found, RouteError, Routes};
use super::stream;
use crate::authz::Rule;
use crate::upstream::Upstreams;
use crate::{error, hygiene};

/// A message that is bytes already.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
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

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = source.remaining();
        Ok(Some(source.copy_to_bytes(length)))
    }
}

/// Calls an RPC with an encoded request; the answer is a stream of encoded messages.
async fn stream_call(
    upstreams: &Upstreams,
    caller: &Caller,
    method: &MethodDescriptor,
    request: Bytes,
    extra: HeaderMap,
) -> Result<tonic::Response<Streaming<Bytes>>, Status> {
    let service = method.parent_service().full_name().to_owned();
    let (backend, mut headers) = upstreams.open(&service, caller)?;
    headers.extend(extra);
    let path = format!("/{service}/{}", method.name());
    let path = path
        .parse()
        .map_err(|_| Status::internal("a method's name is not a path"))?;
    let mut client = Grpc::new(backend).max_decoding_message_size(ValueLimit::MESSAGE_MAX);
    client.ready().await.map_err(|error| {
        tracing::warn!(%error, service, "a service cannot be reached");
        Status::unavailable(format!("{service} cannot be reached"))
    })?;
    let mut request = tonic::Request::new(futures::stream::iter([request]));
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    request.extensions_mut().insert(caller.clone());
    if crate::authz::rule(&service, method.name()).is_some_and(Rule::only_reads) {
        request.extensions_mut().insert(Repeatable);
    }
    client.streaming(request, path, Raw).await
}

/// Calls a unary RPC with an encoded request.
pub(crate) async fn raw_call(
    upstreams: &Upstreams,
    caller: &Caller,
    method: &MethodDescriptor,
    request: Bytes,
    extra: HeaderMap,
) -> Result<Bytes, Status> {
    let call = stream_call(upstreams, caller, method, request, extra).await?;
    let mut messages = call.into_inner();
    let first = messages.message().await?;
    // The status comes in the trailers, after the message.
    while messages.message().await?.is_some() {}
    first.ok_or_else(|| Status::internal("the service sent no message"))
}

/// A message as clients read it: proto names, no defaults, whole numbers without fraction.
pub(crate) fn to_json(method: &MethodDescriptor, bytes: &[u8]) -> Result<Value, Status> {
    let message = DynamicMessage::decode(method.output(), bytes)
        .map_err(|error| Status::internal(format!("the service's message is broken: {error}")))?;
    message_json(&message)
}

pub(super) fn message_json(message: &DynamicMessage) -> Result<Value, Status> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map(whole_numbers)
        .map_err(|error| Status::internal(format!("the service's message has no JSON: {error}")))
}

/// Protobuf's free-form values have doubles only; clients expect `3` where `3` was given.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let double = number.as_f64().filter(|_| number.is_f64());
            Value::Number(double.and_then(json::number).unwrap_or(number))
        }
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, whole_numbers(value)))
            .collect(),
        other => other,
    }
}

/// Whether a path is one of KFP's, whose clients expect what grpc-gateway does.
fn is_kfp(path: &str) -> bool {
    ["/apis/v2beta1/", "/apis/v1beta1/", "/apis/v1alpha1/"]
        .iter()
        .any(|root| path.starts_with(root))
}

/// Answers a REST request.
pub(crate) async fn transcode(
    routes: &Routes,
    upstreams: &Upstreams,
    caller: &Caller,
    request: Request<Body>,
    body_max: usize,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let kfp = is_kfp(&path);
    let found = match routes.find(request.method(), &path) {
        Ok(found) => found,
        Err(problem) => {
            hygiene::drain(request.into_body()).await;
            return not_found(&problem, kfp);
        }
    };
    match answer(&found, upstreams, caller, request, body_max, kfp).await {
        Ok(response) => response,
        Err(status) => error::response(&status),
    }
}

fn not_found(problem: &RouteError, kfp: bool) -> Response<Body> {
    match problem {
        RouteError::Path => error::refuse(
            StatusCode::BAD_REQUEST,
            Code::InvalidArgument,
            "the path is not valid",
        ),
        RouteError::Unknown => error::refuse(StatusCode::NOT_FOUND, Code::NotFound, "Not Found"),
        RouteError::Method(allowed) => {
            let status = if kfp {
                StatusCode::NOT_IMPLEMENTED
            } else {
                StatusCode::METHOD_NOT_ALLOWED
            };
            let mut response = error::refuse(status, Code::Unimplemented, "Method Not Allowed");
            let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
            if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
                response.headers_mut().insert(header::ALLOW, names);
            }
            response
        }
    }
}

async fn answer(
    found: &Found<'_>,
    upstreams: &Upstreams,
    caller: &Caller,
    request: Request<Body>,
    body_max: usize,
    kfp: bool,
) -> Result<Response<Body>, Status> {
    let method = &found.binding.method;
    let service = method.parent_service().full_name().to_owned();
    if crate::authz::rule(&service, method.name()).is_none() {
        return Err(Status::permission_denied(
            "there is no rule for this request",
        ));
    }
    let (parts, body) = request.into_parts();
    let body = whole(body, body_max).await?;
    let query = parts.uri.query().unwrap_or_default();
    let mut message = bind(found, query, &body, Mode { lenient: kfp })?;
    let mut extra = HeaderMap::new();
    if parts.method == Method::PATCH && clears_tags(&body) {
        extra.insert(
            HeaderName::from_static("x-clear-tags"),
            HeaderValue::from_static("true"),
        );
    }
    if method.is_server_streaming() {
        stream::take_cursor(&mut message, &parts.headers);
        let request = message.encode_to_vec().into();
        let call = stream_call(upstreams, caller, method, request, extra).await?;
        return stream::respond(method, call, &parts.headers).await;
    }
    let request = message.encode_to_vec().into();
    let bytes = raw_call(upstreams, caller, method, request, extra).await?;
    Ok(error::json_response(
        StatusCode::OK,
        &to_json(method, &bytes)?,
    ))
}

/// How many times the largest body is read of one that is larger.
const READ_ON: usize = 8;

/// The body of a request. Clients hear an answer only when they have sent everything, so what is too
/// large is read on, within reason, and dropped.
async fn whole(body: Body, max: usize) -> Result<Bytes, Status> {
    let (mut kept, mut seen) = (BytesMut::new(), 0);
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            Status::invalid_argument(format!("the body has not come whole: {error}"))
        })?;
        seen += part.len();
        if seen <= max {
            kept.extend_from_slice(&part);
        } else {
            kept = BytesMut::new();
            if seen / READ_ON > max {
                break;
            }
        }
    }
    if seen <= max {
        return Ok(kept.freeze());
    }
    Err(Status::invalid_argument(format!(
        "the body is larger than {max} bytes (gateway.body_max)"
    )))
}

/// Whether tags are given and empty, which protobuf cannot tell from not given.
fn clears_tags(body: &[u8]) -> bool {
    let parsed: Result<Value, _> = serde_json::from_slice(body);
    parsed.is_ok_and(|body| {
        body.get("tags")
            .and_then(Value::as_object)
            .is_some_and(serde_json::Map::is_empty)
    })
}
