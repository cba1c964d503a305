//! Errors as clients read them: `google.rpc.Status` in JSON.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::contracts::Contracts;

/// The HTTP status of a gRPC code (google.rpc.Code).
pub(crate) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The JSON of a status, with every detail that is in the descriptors.
pub(crate) fn status_json(status: &Status, contracts: &Contracts) -> Value {
    let whole = contracts
        .pool()
        .get_message_by_name("google.rpc.Status")
        .filter(|_| !status.details().is_empty())
        .and_then(|message| DynamicMessage::decode(message, status.details()).ok())
        .and_then(|message| {
            let options = SerializeOptions::new().use_proto_field_name(true);
            message
                .serialize_with_options(serde_json::value::Serializer, &options)
                .ok()
        });
    whole.unwrap_or_else(|| json!({"code": status.code() as i32, "message": status.message()}))
}

/// The response for a failed call.
pub(crate) fn response(status: &Status, contracts: &Contracts) -> Response<Body> {
    let mut response = json_response(http_status(status.code()), &status_json(status, contracts));
    if status.code() == Code::Unauthenticated {
        let challenge = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// A response that the gateway itself decides on.
pub(crate) fn refuse(status: StatusCode, code: Code, message: &str) -> Response<Body> {
    json_response(status, &json!({"code": code as i32, "message": message}))
}

/// A JSON response.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
