//! One transcoded call: bind, call, answer.

use axum::body::Body;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
};
use bytes::{Bytes, BytesMut};
use ferroflow_types::{Caller, json};
use futures::StreamExt as _;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::{Code, Status};

use super::bind::{Mode, bind};
use super::routes::{Found, RouteError, Routes};
use super::stream;
use crate::authorize::{Allowed, Rules};
use crate::contracts::Contracts;
use crate::upstream::Upstreams;
use crate::{call, error, hygiene};

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

/// What transcoding a request needs.
pub(crate) struct Transcoder<'g> {
    pub(crate) contracts: &'g Contracts,
    pub(crate) rules: &'g Rules,
    pub(crate) routes: &'g Routes,
    pub(crate) upstreams: &'g Upstreams,
    pub(crate) body_max: usize,
}

/// Answers a REST request.
pub(crate) async fn transcode(
    transcoder: &Transcoder<'_>,
    caller: &Caller,
    request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let kfp = is_kfp(&path);
    let found = match transcoder.routes.find(request.method(), &path) {
        Ok(found) => found,
        Err(problem) => {
            hygiene::drain(request.into_body()).await;
            return not_found(&problem, kfp);
        }
    };
    let rpc = found.binding.method.full_name();
    let Ok(allowed) = transcoder.rules.allow(caller, rpc) else {
        return error::response(
            &Status::permission_denied("there is no rule for this request"),
            transcoder.contracts,
        );
    };
    match answer(transcoder, &found, &allowed, request, kfp).await {
        Ok(response) => response,
        Err(status) => error::response(&status, transcoder.contracts),
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
    transcoder: &Transcoder<'_>,
    found: &Found<'_>,
    allowed: &Allowed,
    request: Request<Body>,
    kfp: bool,
) -> Result<Response<Body>, Status> {
    let method = &allowed.method;
    let (parts, body) = request.into_parts();
    let body = whole(body, transcoder.body_max).await?;
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
        let call = call::stream(transcoder.upstreams, allowed, request, extra).await?;
        return stream::respond(method, call, &parts.headers, transcoder.contracts).await;
    }
    let request = message.encode_to_vec().into();
    let bytes = call::unary(transcoder.upstreams, allowed, request, extra).await?;
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
