//! Server streams over HTTP.
//!
//! Messages of `google.api.HttpBody` are sent as the bytes that they hold. The next message is read
//! only when the client has taken the last, so about one HTTP/2 window of a body is in memory, however
//! long the body is. Other messages are sent in the form that `Accept` names: Server-Sent Events, JSON
//! lines, or else grpc-gateway's `{"result": …}` lines. When the client disconnects, the call is
//! cancelled.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{self, HeaderMap, HeaderValue, header};
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use prost_reflect::{DynamicMessage, FieldDescriptor, MethodDescriptor, Value};
use tonic::{Response, Status, Streaming};

use super::answer::Transcoder;
use super::bind::is_http_body;
use super::content;
use super::deadline::Deadline;
use super::json::{message_json, select_field};
use crate::contracts::Contracts;
use crate::dialect::Dialect;
use crate::error::{broken_message, defect, status_json};
use crate::route::RouteMatch;

/// Proxies close streams on which nothing comes for long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The call's metadata that names the file whose content comes.
const FILE_NAME: &str = "file-name-bin";

/// The field by which a stream can be resumed.
const CURSOR: &str = "cursor";

/// A client that comes back says with `Last-Event-ID` what it has. Its URL, which an `EventSource` repeats,
/// may name an older cursor.
pub(super) fn apply_last_event_id(request: &mut DynamicMessage, headers: &HeaderMap) {
    if let Some(id) = headers.get("last-event-id").and_then(|id| id.to_str().ok())
        && !id.is_empty()
        && request.get_field_by_name(CURSOR).is_some()
    {
        request.set_field_by_name(CURSOR, Value::String(id.to_owned()));
    }
}

/// A message of the stream, as JSON and with its cursor.
struct Item {
    json: serde_json::Value,
    cursor: String,
}

fn decode_item(
    dialect: &dyn Dialect,
    method: &MethodDescriptor,
    field: Option<&FieldDescriptor>,
    bytes: &Bytes,
) -> Result<Item, Status> {
    let message = DynamicMessage::decode(method.output(), bytes.clone()).map_err(broken_message)?;
    let cursor = match message
        .get_field_by_name(CURSOR)
        .map(std::borrow::Cow::into_owned)
    {
        Some(Value::String(cursor)) => cursor,
        _ => String::new(),
    };
    Ok(Item {
        json: select_field(message_json(dialect, &message)?, field),
        cursor,
    })
}

/// The response for a stream. An error before the first message is an error like any other.
pub(super) async fn respond(
    transcoder: &Transcoder<'_>,
    found: &RouteMatch<'_>,
    call: Response<Streaming<Bytes>>,
    deadline: Deadline,
    headers: &HeaderMap,
) -> Result<http::Response<Body>, Status> {
    let method = &found.binding.method;
    if is_http_body(&method.output()) {
        return http_body_response(method, call, deadline, headers).await;
    }
    let messages = deadline.limit_stream(call.into_inner());
    let accepts = |kind: &str| {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        accept.is_some_and(|accept| accept.contains(kind))
    };
    let (dialect, contracts) = (transcoder.dialect, transcoder.contracts.clone());
    let (method, field) = (method.clone(), found.binding.response.clone());
    let items = messages.map(move |message| {
        message.and_then(|bytes| decode_item(dialect, &method, field.as_ref(), &bytes))
    });
    if accepts("text/event-stream") {
        return Ok(sse_response(items, contracts));
    }
    // Frames on our own paths too: clients of former releases ask for no form and read frames.
    let (kind, frames) = if accepts("application/x-ndjson") {
        ("application/x-ndjson", false)
    } else {
        ("application/json", true)
    };
    let lines = items.map(move |item| {
        let json = match (item, frames) {
            (Ok(item), true) => serde_json::json!({"result": item.json}),
            (Ok(item), false) => item.json,
            (Err(status), _) => serde_json::json!({"error": status_json(&status, &contracts)}),
        };
        Ok::<_, Infallible>(format!("{json}\n"))
    });
    let mut response = http::Response::new(Body::from_stream(lines));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

fn sse_response(
    items: impl Stream<Item = Result<Item, Status>> + Send + 'static,
    contracts: Contracts,
) -> http::Response<Body> {
    let events = items.map(move |item| {
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
                .data(status_json(&status, &contracts).to_string()),
        })
    });
    // Browsers connect again after every end of a stream. By this event a client knows that nothing
    // more comes, and that the connection did not break.
    let end = stream::iter([Ok(Event::default().event("end").data("{}"))]);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events.chain(end))
        .keep_alive(keep_alive)
        .into_response()
}

/// The response for `google.api.HttpBody`, of a stream or of one message. The content type is that of
/// the first message, the file name that of the call's metadata.
async fn http_body_response(
    method: &MethodDescriptor,
    call: Response<Streaming<Bytes>>,
    deadline: Deadline,
    headers: &HeaderMap,
) -> Result<http::Response<Body>, Status> {
    let name = call.metadata().get_bin(FILE_NAME);
    let name = name
        .and_then(|name| name.to_bytes().ok())
        .unwrap_or_default();
    let mut messages = deadline.limit_stream(call.into_inner());
    // Awaited before the response begins: an error here is still answered with its status.
    let first = messages.next().await.transpose()?;
    let (kind, data) = match &first {
        Some(bytes) => decode_http_body(method, bytes)?,
        None => ("text/plain; charset=utf-8".to_owned(), Bytes::new()),
    };
    let method = method.clone();
    // An error from here on cuts the body, as the status 200 has been sent.
    let rest = messages
        .map(move |message| message.and_then(|bytes| Ok(decode_http_body(&method, &bytes)?.1)));
    let bytes = stream::iter([Ok(data)]).chain(rest);
    content::respond(&kind, &String::from_utf8_lossy(&name), bytes, headers).await
}

fn decode_http_body(method: &MethodDescriptor, bytes: &Bytes) -> Result<(String, Bytes), Status> {
    let message = DynamicMessage::decode(method.output(), bytes.clone()).map_err(broken_message)?;
    let field = |name| {
        message
            .get_field_by_name(name)
            .map(std::borrow::Cow::into_owned)
    };
    match (field("content_type"), field("data")) {
        (Some(Value::String(kind)), Some(Value::Bytes(data))) => Ok((kind, data)),
        _ => Err(defect("a service's message is no HttpBody")),
    }
}
