//! [`ferroflow_types::Error`] as gRPC status, in the one place where that is decided.
//!
//! Details, in this order: `google.rpc.Status` with the bare sentence (what KFP's clients print),
//! `BadRequest` with every wrong field, `ErrorInfo` with the stable reason.

use ferroflow_proto::google::rpc;
use ferroflow_types::{Error, ErrorKind};
use prost::Message as _;
use tonic::{Code, Status};

/// The domain of reasons.
const DOMAIN: &str = "ferroflow.ai";

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

/// The status of an error. What is internal is logged here with its causes, and told to nobody.
pub fn to_status(error: &Error) -> Status {
    let code = code(error.kind());
    let hidden = matches!(error.kind(), ErrorKind::Internal | ErrorKind::DataLoss);
    if hidden || error.kind() == ErrorKind::Unavailable {
        tracing::error!(
            reason = error.reason(),
            error = chain(error),
            "a request failed"
        );
    }
    let (text, message) = if hidden {
        (
            "Internal Server Error".to_owned(),
            "internal error, see the service's log".to_owned(),
        )
    } else {
        (error.message().to_owned(), error.to_string())
    };
    let mut details = vec![any(
        "google.rpc.Status",
        &rpc::Status {
            code: code as i32,
            message: text,
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
        details.push(any(
            "google.rpc.BadRequest",
            &rpc::BadRequest { field_violations },
        ));
    }
    let info = rpc::ErrorInfo {
        reason: error.reason().to_owned(),
        domain: DOMAIN.to_owned(),
        ..rpc::ErrorInfo::default()
    };
    details.push(any("google.rpc.ErrorInfo", &info));
    let whole = rpc::Status {
        code: code as i32,
        message: message.clone(),
        details,
    };
    Status::with_details(code, message, whole.encode_to_vec().into())
}

fn any(name: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use ferroflow_types::FieldViolation;

    use super::*;

    #[test]
    fn every_wrong_field_is_told_and_nothing_internal_is() {
        let faults = vec![
            FieldViolation::new("a", "is wrong"),
            FieldViolation::new("b", "as well"),
        ];
        let status = to_status(&Error::violations("BAD", "the request is wrong", faults));

        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "the request is wrong; a: is wrong; b: as well"
        );
        let whole = rpc::Status::decode(status.details()).unwrap();
        assert_eq!(whole.details.len(), 3);

        let secret = Error::internal("the password is x", std::io::Error::other("y"));
        let status = to_status(&secret);
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("password"));
    }
}
