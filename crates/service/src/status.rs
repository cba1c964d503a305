//! [`ferroflow_types::Error`] as gRPC status, in the one place where that is decided.
//!
//! Details, in this order: `google.rpc.Status` with the bare sentence (what KFP's clients print),
//! `BadRequest` with every wrong field, `ErrorInfo` with the stable reason. What is internal is told
//! to nobody but the log; the caller gets the request's number, which finds it there.

use std::collections::HashMap;

use ferroflow_proto::google::rpc;
use ferroflow_types::error::chain;
use ferroflow_types::{Error, ErrorKind, FieldViolation};
use prost::Message as _;
use tonic::{Code, Status};

use crate::telemetry;

/// The domain of reasons.
const DOMAIN: &str = "ferroflow.ai";

const STATUS: &str = "google.rpc.Status";
const BAD_REQUEST: &str = "google.rpc.BadRequest";
const ERROR_INFO: &str = "google.rpc.ErrorInfo";

/// The gRPC code of a kind.
pub fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Precondition => Code::FailedPrecondition,
        ErrorKind::Conflict => Code::Aborted,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Deadline => Code::DeadlineExceeded,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
        ErrorKind::DataLoss => Code::DataLoss,
    }
}

/// The kind that a code tells of; `None` for success.
pub fn kind(code: Code) -> Option<ErrorKind> {
    Some(match code {
        Code::Ok => return None,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::Precondition,
        Code::Aborted => ErrorKind::Conflict,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::Forbidden,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        // Calls that wait for a connection which breaks fail as CANCELLED.
        Code::Unavailable | Code::Cancelled => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::Deadline,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Internal | Code::Unknown => ErrorKind::Internal,
        Code::DataLoss => ErrorKind::DataLoss,
    })
}

/// What a caller sees of a failure: message and details of its status.
struct PublicError {
    /// KFP's clients show this.
    bare: String,
    message: String,
    metadata: HashMap<String, String>,
}

impl PublicError {
    fn of(error: &Error) -> Self {
        let hidden = matches!(error.kind(), ErrorKind::Internal | ErrorKind::DataLoss);
        // That a part is unavailable is for the log as well, but its sentence may be shown.
        if !hidden && error.kind() != ErrorKind::Unavailable {
            return Self {
                bare: error.message().to_owned(),
                message: error.to_string(),
                metadata: HashMap::new(),
            };
        }
        let request = request_id();
        tracing::error!(
            request,
            reason = error.reason(),
            error = chain(error),
            "a request failed"
        );
        let (bare, message) = if hidden {
            (
                "Internal Server Error".to_owned(),
                format!("internal error, request {request}: the service's log says more"),
            )
        } else {
            (error.message().to_owned(), error.to_string())
        };
        Self {
            bare,
            message,
            metadata: HashMap::from([("request".to_owned(), request)]),
        }
    }
}

/// The trace's number, which every line of the log of this request has; a number of its own for a
/// request that is not traced.
fn request_id() -> String {
    let trace = telemetry::current_traceparent()
        .and_then(|parent| parent.split('-').nth(1).map(str::to_owned));
    trace.unwrap_or_else(|| {
        let mut bytes = [0; 16];
        match getrandom::fill(&mut bytes) {
            Ok(()) => format!("{:032x}", u128::from_ne_bytes(bytes)),
            Err(_) => "unknown".to_owned(),
        }
    })
}

/// The status of an error. What is internal is logged here with its causes, and told to nobody.
pub fn to_status(error: &Error) -> Status {
    let code = code(error.kind());
    let PublicError {
        bare,
        message,
        metadata,
    } = PublicError::of(error);
    let mut details = vec![any(
        STATUS,
        &rpc::Status {
            code: code as i32,
            message: bare,
            details: Vec::new(),
        },
    )];
    if !error.field_violations().is_empty() {
        let violations = error.field_violations().iter();
        let field_violations = violations
            .map(|violation| rpc::bad_request::FieldViolation {
                field: violation.field.clone(),
                description: violation.description.clone(),
            })
            .collect();
        details.push(any(BAD_REQUEST, &rpc::BadRequest { field_violations }));
    }
    let info = rpc::ErrorInfo {
        reason: error.reason().to_owned(),
        domain: DOMAIN.to_owned(),
        metadata,
    };
    details.push(any(ERROR_INFO, &info));
    let whole = rpc::Status {
        code: code as i32,
        message: message.clone(),
        details,
    };
    Status::with_details(code, message, whole.encode_to_vec().into())
}

/// A failure as the other side of a call knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// The stable word; empty when it was not one of our services that failed.
    pub reason: String,
    /// The sentence for people, without the violations.
    pub message: String,
    /// Every wrong field.
    pub violations: Vec<FieldViolation>,
}

/// The failure that a status tells of; `None` for success. Understands statuses without details,
/// such as those of a connection that broke.
pub fn from_status(status: &Status) -> Option<Failure> {
    let mut failure = Failure {
        kind: kind(status.code())?,
        reason: String::new(),
        message: status.message().to_owned(),
        violations: Vec::new(),
    };
    let whole = rpc::Status::decode(status.details()).unwrap_or_default();
    for detail in &whole.details {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let value = detail.value.as_slice();
        if name == STATUS
            && let Ok(bare) = rpc::Status::decode(value)
        {
            failure.message = bare.message;
        } else if name == BAD_REQUEST
            && let Ok(bad) = rpc::BadRequest::decode(value)
        {
            let violations = bad.field_violations.into_iter();
            failure.violations = violations
                .map(|one| FieldViolation::new(one.field, one.description))
                .collect();
        } else if name == ERROR_INFO
            && let Ok(info) = rpc::ErrorInfo::decode(value)
        {
            failure.reason = info.reason;
        }
    }
    Some(failure)
}

fn any(name: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ErrorKind; 13] = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Precondition,
        ErrorKind::Conflict,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::Exhausted,
        ErrorKind::Unavailable,
        ErrorKind::Deadline,
        ErrorKind::Unimplemented,
        ErrorKind::Internal,
        ErrorKind::DataLoss,
    ];

    #[test]
    fn every_wrong_field_is_told_in_text_and_in_details() {
        let faults = vec![
            FieldViolation::new("a", "is wrong"),
            FieldViolation::new("b", "as well"),
        ];
        let error = Error::violations("BAD", "the request is wrong", faults.clone());

        let status = to_status(&error);

        assert_eq!(
            status.message(),
            "the request is wrong; a: is wrong; b: as well"
        );
        let whole = rpc::Status::decode(status.details()).unwrap();
        let names: Vec<&str> = whole
            .details
            .iter()
            .filter_map(|detail| detail.type_url.rsplit('/').next())
            .collect();
        assert_eq!(names, [STATUS, BAD_REQUEST, ERROR_INFO]);
        assert_eq!(from_status(&status).unwrap().violations, faults);
    }

    #[test]
    fn every_kind_comes_back_as_it_went() {
        for kind in KINDS {
            let error = Error::new(kind, "SOME_REASON", "some sentence");

            let failure = from_status(&to_status(&error)).unwrap();

            assert_eq!(failure.kind, kind);
            assert_eq!(failure.reason, "SOME_REASON");
            let hidden = matches!(kind, ErrorKind::Internal | ErrorKind::DataLoss);
            assert_eq!(failure.message == "some sentence", !hidden, "{kind:?}");
        }
    }

    #[test]
    fn what_is_internal_is_not_told_but_has_a_number() {
        let secret = Error::internal("the password is x", std::io::Error::other("y"));

        let status = to_status(&secret);

        assert_eq!(status.code(), Code::Internal);
        let all = format!("{status:?} {}", String::from_utf8_lossy(status.details()));
        assert!(!all.contains("password"), "{all}");
        let number = status.message().split(' ').nth(3).unwrap();
        let number = number.trim_end_matches(':');
        assert_eq!(number.len(), 32, "{}", status.message());
        assert!(u128::from_str_radix(number, 16).is_ok_and(|number| number != 0));
    }

    #[test]
    fn a_status_without_details_is_understood() {
        let failure = from_status(&Status::unavailable("the connection broke")).unwrap();

        assert_eq!(failure.kind, ErrorKind::Unavailable);
        assert_eq!(failure.message, "the connection broke");
        assert_eq!(from_status(&Status::ok("")), None);
    }
}
