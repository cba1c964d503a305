//! Server streams over HTTP.
//!
//! `google.api.HttpBody` goes out as its bytes. Other messages go out as the client asks: Server-
//! Sent Events, lines of JSON, or grpc-gateway's frames. A client that goes away ends the call.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use tonic::{Status, Streaming};

use super::call::message_json;
use crate::error::status_json;

/// Proxies close streams on which nothing comes for long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The field by which a stream can be resumed.
const CURSOR: &str = "cursor";

/// A client that comes back says with `Last-Event-ID` what it has.
pub(super) fn take_cursor(request: &mut DynamicMessage, headers: &HeaderMap) {
    if let Some(id) = headers.get("last-event-id").and_then(|id| id.to_str().ok())
        && request.get_field_by_name(CURSOR).is_some()
        && !request.has_field_by_name(CURSOR)
    {
        request.set_field_by_name(CURSOR, Value::String(id.to_owned()));
    }
}

/// A message of the stream, as JSON and with its cursor.
struct Item {
    json: serde_json::Value,
    cursor: String,
}

fn item(method: &MethodDescriptor, bytes: &Bytes) -> Result<Item, Status> {
    let message = DynamicMessage::decode(method.output(), bytes.clone())
        .map_err(|error| Status::internal(format!("the service's message is broken: {error}")))?;
    let cursor = match message
        .get_field_by_name(CURSOR)
        .map(std::borrow::Cow::into_owned)
    {
        Some(Value::String(cursor)) => cursor,
        _ => String::new(),
    };
    Ok(Item {
        json: message_json(&message)?,
        cursor,
    })
}

/// The response for a stream. An error before the first message is an error like any other.
pub(super) async fn respond(
    method: &MethodDescriptor,
    messages: Streaming<Bytes>,
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    if method.output().full_name() == "google.api.HttpBody" {
        return bodies(method, messages).await;
    }
    let accepts = |kind: &str| {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        accept.is_some_and(|accept| accept.contains(kind))
    };
    let method = method.clone();
    let items = messages.map(move |message| message.and_then(|bytes| item(&method, &bytes)));
    if accepts("text/event-stream") {
        return Ok(events(items));
    }
    let (kind, frames) = if accepts("application/x-ndjson") {
        ("application/x-ndjson", false)
    } else {
        ("application/json", true)
    };
    let lines = items.map(move |item| {
        let json = match (item, frames) {
            (Ok(item), true) => serde_json::json!({"result": item.json}),
            (Ok(item), false) => item.json,
            (Err(status), _) => serde_json::json!({"error": status_json(&status)}),
        };
        Ok::<_, Infallible>(format!("{json}\n"))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

fn events(items: impl Stream<Item = Result<Item, Status>> + Send + 'static) -> Response<Body> {
    let events = items.map(|item| {
        Ok::<_, Infallible>(match item {
            Ok(item) => {
                let event = Event::default().data(item.json.to_string());
                if item.cursor.is_empty() {
                    event
                } else {
                    event.id(item.cursor)
                }
            }
            Err(status) => Event::default()
                .event("error")
                .data(status_json(&status).to_string()),
        })
    });
    let end = stream::iter([Ok(Event::default().event("end").data("{}"))]);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events.chain(end))
        .keep_alive(keep_alive)
        .into_response()
}

/// Raw bytes; the first message says what they are.
async fn bodies(
    method: &MethodDescriptor,
    mut messages: Streaming<Bytes>,
) -> Result<Response<Body>, Status> {
    let first = messages.message().await?;
    let (kind, data) = match &first {
        Some(bytes) => body(method, bytes)?,
        None => ("text/plain; charset=utf-8".to_owned(), Bytes::new()),
    };
    let method = method.clone();
    let rest = messages.map(move |message| message.and_then(|bytes| Ok(body(&method, &bytes)?.1)));
    let bytes = stream::iter([Ok(data)]).chain(rest);
    let mut response = Response::new(Body::from_stream(bytes));
    let headers = response.headers_mut();
    let inline = kind.starts_with("text/plain") || kind.starts_with("application/json");
    let kind = HeaderValue::from_str(&kind)
        .map_err(|_| Status::internal("the service's content type is not a header"))?;
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox"),
    );
    if !inline {
        let attachment = HeaderValue::from_static("attachment");
        headers.insert(header::CONTENT_DISPOSITION, attachment);
    }
    Ok(response)
}

fn body(method: &MethodDescriptor, bytes: &Bytes) -> Result<(String, Bytes), Status> {
    let message = DynamicMessage::decode(method.output(), bytes.clone())
        .map_err(|error| Status::internal(format!("the service's message is broken: {error}")))?;
    let field = |name| {
        message
            .get_field_by_name(name)
            .map(std::borrow::Cow::into_owned)
    };
    match (field("content_type"), field("data")) {
        (Some(Value::String(kind)), Some(Value::Bytes(data))) => Ok((kind, data)),
        _ => Err(Status::internal("the service's message is no HttpBody")),
    }
}
