//! The bodies of requests.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tonic::Status;

/// What a request brings.
pub(super) struct RequestBody {
    /// Its type, empty when it is not said.
    pub(super) kind: String,
    pub(super) bytes: Bytes,
}

impl RequestBody {
    /// The whole body of a request.
    pub(super) async fn read(headers: &HeaderMap, body: Body, max: usize) -> Result<Self, Status> {
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.map_or(Ok(""), |kind| kind.to_str());
        let kind = kind.map_err(|_| Status::invalid_argument("content-type: not a text"))?;
        Ok(Self {
            kind: kind.to_owned(),
            bytes: read_body(body, max).await?,
        })
    }
}

/// Of a body that is too large, no more is read than this many times the largest one.
const DISCARD_FACTOR: usize = 8;

/// The body of a request. Clients hear an answer only when they have sent everything, so what is too
/// large is read on, within reason, and dropped.
async fn read_body(body: Body, max: usize) -> Result<Bytes, Status> {
    let (mut kept, mut received) = (BytesMut::new(), 0);
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            Status::invalid_argument(format!("the body has not come whole: {error}"))
        })?;
        received += part.len();
        if received <= max {
            kept.extend_from_slice(&part);
        } else {
            kept = BytesMut::new();
            if received / DISCARD_FACTOR > max {
                break;
            }
        }
    }
    if received <= max {
        return Ok(kept.freeze());
    }
    Err(Status::invalid_argument(format!(
        "the body is larger than {max} bytes (gateway.body_max)"
    )))
}
