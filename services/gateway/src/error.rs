//! Errors as clients read them: `google.rpc.Status` in JSON.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferroflow_proto::google::rpc;
use ferroflow_service::status::to_status;
use ferroflow_types::{Error, ErrorKind};
use prost::Message as _;
use prost_reflect::{DynamicMessage, SerializeOptions};
use prost_types::Any;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::contracts::Contracts;

/// A defect that no other error is the cause of: the log says what it is, the caller gets the number of
/// the request.
pub(crate) fn defect(what: &str) -> Status {
    to_status(&Error::new(ErrorKind::Internal, "INTERNAL", what))
}

/// A service's message that does not follow its contract. What it is instead may be anything, so the
/// caller does not see it.
pub(crate) fn broken_message(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Status {
    to_status(&Error::internal("a service's message is broken", cause))
}

/// The HTTP status of a gRPC code (google.rpc.Code).
pub(crate) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // google.rpc.Code has 499 (client closed request), for which there is no constant.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        // Also a failed precondition: 412 would be about conditional requests.
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

/// The JSON of a status with its details.
pub(crate) fn status_json(status: &Status, contracts: &Contracts) -> Value {
    let Some(whole) = details(status) else {
        return json!({"code": status.code() as i32, "message": status.message()});
    };
    let details = whole.details.iter().map(|any| detail_json(any, contracts));
    let details: Vec<_> = details.collect();
    json!({"code": whole.code, "message": whole.message, "details": details})
}

/// What the service says beside code and message.
fn details(status: &Status) -> Option<rpc::Status> {
    let given = Some(status.details()).filter(|details| !details.is_empty());
    rpc::Status::decode(given?).ok()
}

/// A detail by its contract; one that nobody here knows stays bytes, so that it is not lost.
fn detail_json(any: &Any, contracts: &Contracts) -> Value {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    let known = contracts.pool().get_message_by_name("google.protobuf.Any");
    let json = known
        .filter(|_| contracts.pool().get_message_by_name(name).is_some())
        .and_then(|of| DynamicMessage::decode(of, any.encode_to_vec().as_slice()).ok())
        .and_then(|message| {
            let options = SerializeOptions::new().use_proto_field_name(true);
            message
                .serialize_with_options(serde_json::value::Serializer, &options)
                .ok()
        });
    // KFP's generated client fails on a `value` that is not standard base64.
    json.unwrap_or_else(|| json!({"@type": any.type_url, "value": STANDARD.encode(&any.value)}))
}

/// How long the service asks clients to wait, in whole seconds.
fn retry_after(status: &Status) -> Option<HeaderValue> {
    let whole = details(status)?;
    let is_info = |any: &&Any| any.type_url.ends_with("/google.rpc.RetryInfo");
    let info = whole.details.iter().find(is_info)?;
    let delay = rpc::RetryInfo::decode(info.value.as_slice())
        .ok()?
        .retry_delay?;
    // Rounded up, so that nobody comes back too early.
    let seconds = delay.seconds + i64::from(delay.nanos > 0);
    HeaderValue::from_str(&seconds.max(0).to_string()).ok()
}

/// The response for a failed call.
pub(crate) fn response(status: &Status, contracts: &Contracts) -> Response<Body> {
    let mut response = json_response(http_status(status.code()), &status_json(status, contracts));
    let headers = response.headers_mut();
    // A 401 has to name a way to authenticate (RFC 9110 §15.5.2).
    if status.code() == Code::Unauthenticated {
        let challenge = HeaderValue::from_static("Bearer");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = retry_after(status) {
        headers.insert(header::RETRY_AFTER, seconds);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(details: Vec<Any>) -> Status {
        let whole = rpc::Status {
            code: 8,
            message: "enough".to_owned(),
            details,
        };
        let details = whole.encode_to_vec().into();
        Status::with_details(Code::ResourceExhausted, "enough", details)
    }

    fn any(kind: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: format!("type.googleapis.com/{kind}"),
            value,
        }
    }

    fn retry(seconds: i64, nanos: i32) -> Any {
        let delay = prost_types::Duration { seconds, nanos };
        let info = rpc::RetryInfo {
            retry_delay: Some(delay),
        };
        any("google.rpc.RetryInfo", info.encode_to_vec())
    }

    #[test]
    fn details_are_shown_by_their_contract_and_unknown_ones_stay() {
        let broken = any("google.rpc.RetryInfo", vec![0xff]);
        let status = status(vec![retry(1, 5), any("x.Unknown", vec![1, 2]), broken]);

        let json = status_json(&status, &Contracts::default());

        let kind = "type.googleapis.com/google.rpc.RetryInfo";
        assert_eq!(
            json,
            json!({"code": 8, "message": "enough", "details": [
                {"@type": kind, "retry_delay": "1.000000005s"},
                {"@type": "type.googleapis.com/x.Unknown", "value": "AQI="},
                {"@type": kind, "value": "/w=="},
            ]})
        );
    }

    #[test]
    fn a_status_without_details_is_code_and_message() {
        let contracts = Contracts::default();
        for status in [
            Status::not_found("gone"),
            Status::with_details(Code::NotFound, "gone", vec![0xff].into()),
        ] {
            let json = status_json(&status, &contracts);
            assert_eq!(json, json!({"code": 5, "message": "gone"}));
        }
    }

    #[test]
    fn the_wait_that_is_asked_for_is_a_header() {
        let contracts = Contracts::default();
        for (detail, expected) in [
            (retry(2, 0), Some("2")),
            (retry(2, 1), Some("3")),
            (retry(-1, 0), Some("0")),
            (any("x.Unknown", Vec::new()), None),
        ] {
            let response = response(&status(vec![detail]), &contracts);
            let header = response.headers().get(header::RETRY_AFTER);
            assert_eq!(header.map(|value| value.to_str().unwrap()), expected);
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        }
    }

    #[test]
    fn a_broken_message_is_told_by_the_number_of_the_request_only() {
        let cause = "10.1.2.3: \"/secret\" is not UTF-8".to_owned();
        for status in [broken_message(cause.clone()), defect(&cause)] {
            let shown = response(&status, &Contracts::default());
            let json = status_json(&status, &Contracts::default()).to_string();

            assert_eq!(shown.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert!(!json.contains(&cause), "{json}");
            assert!(status.message().starts_with("internal error, request "));
        }
    }

    #[test]
    fn every_code_has_a_status() {
        for (code, expected) in [
            (0, 200),
            (1, 499),
            (2, 500),
            (3, 400),
            (4, 504),
            (5, 404),
            (6, 409),
            (7, 403),
            (8, 429),
            (9, 400),
            (10, 409),
            (11, 400),
            (12, 501),
            (13, 500),
            (14, 503),
            (15, 500),
            (16, 401),
            (99, 500),
        ] {
            assert_eq!(
                http_status(Code::from_i32(code)).as_u16(),
                expected,
                "{code}"
            );
        }
    }
}
