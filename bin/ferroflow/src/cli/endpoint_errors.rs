//! What answers at the endpoint and is no platform: another server, or a proxy that has none behind it.

use std::error::Error;
use std::fmt;

use http::{Response, StatusCode, header};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::BoxError;

/// What the transport says when the answer is no HTTP/2.
const NOT_HTTP2_ERRORS: &[&str] = &[
    "frame with invalid size",
    "PROTOCOL_ERROR",
    "protocol error",
];

/// Why a call failed: the transport's error, or the status that it is told by. A type of its own, for
/// futures over boxed errors are not known to be `Send`.
#[derive(Debug)]
pub(super) struct CallError(BoxError);

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for CallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// Whether an error, or one that it is because of, says one of these.
pub(super) fn chain_contains(error: &(dyn Error + 'static), phrases: &[&str]) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = format!("{error} {error:?}");
        if phrases.iter().any(|phrase| text.contains(phrase)) {
            return true;
        }
        next = error.source();
    }
    false
}

fn wrong_endpoint(endpoint: &str, reason: &str) -> CallError {
    let other = match endpoint.strip_prefix("http://") {
        Some(rest) => format!(", or https://{rest} if it speaks TLS"),
        None => String::new(),
    };
    // Not one of the codes after which a platform is waited for.
    let status = Status::failed_precondition(format!(
        "what answers at {endpoint} is not a Ferroflow gRPC endpoint ({reason}): name the \
         platform's by --endpoint{other}"
    ));
    CallError(status.into())
}

/// What an error is because of, to the end.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// A failed call, with what answered if that was no HTTP/2.
pub(super) fn map_error(endpoint: &str, error: impl Into<BoxError>) -> CallError {
    let error = error.into();
    if chain_contains(error.as_ref(), NOT_HTTP2_ERRORS) {
        return wrong_endpoint(endpoint, "it does not answer in HTTP/2");
    }
    let cause = root_cause(error.as_ref());
    let status = match Status::try_from_error(error) {
        // Calls that waited for a connection which broke fail with this code.
        Ok(status) if status.code() != Code::Cancelled => status,
        // A platform that stops breaks connections, and so do servers of HTTP/1, which close before
        // the page that they answer with was read: which of them it is can't be seen.
        _ => Status::unavailable(format!(
            "the connection to {endpoint} broke ({cause}); if that goes on, what answers there is \
             not a Ferroflow gRPC endpoint"
        )),
    };
    CallError(status.into())
}

/// An answer, unless it is one of a web server.
pub(super) fn check_response(
    endpoint: &str,
    response: Response<Body>,
) -> Result<Response<Body>, CallError> {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|content_type| content_type.to_str().ok())
        .unwrap_or_default();
    let status = response.status();
    // What a proxy says of a platform that is away, or of who may call, is told by its code.
    let is_page = status.is_success()
        || status.is_redirection()
        || matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        );
    if !is_page || content_type.starts_with("application/grpc") {
        return Ok(response);
    }
    let content_type = if content_type.is_empty() {
        "no content"
    } else {
        content_type
    };
    Err(wrong_endpoint(
        endpoint,
        &format!("it answers with {status}, {content_type}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, content_type: &'static str) -> Result<Response<Body>, String> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let content_type = header::HeaderValue::from_static(content_type);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
        check_response("http://h:1", response).map_err(|error| error.to_string())
    }

    #[test]
    fn pages_are_no_answers_and_what_proxies_say_is_kept() {
        for (status, content_type) in [
            (200, "application/grpc"),
            (503, "text/html"),
            (401, "text/html"),
        ] {
            assert!(
                response(status, content_type).is_ok(),
                "{status} {content_type}"
            );
        }
        let message = response(404, "text/html").unwrap_err();
        assert!(
            message.contains("http://h:1 is not a Ferroflow gRPC endpoint"),
            "{message}"
        );
        assert!(message.contains("404 Not Found, text/html"), "{message}");
        assert!(response(200, "text/html").is_err());
    }

    #[test]
    fn an_answer_that_is_no_http2_is_told() {
        let error = std::io::Error::other("connection error detected: frame with invalid size");
        let message = map_error("https://h", error).to_string();

        assert!(
            message.contains("https://h is not a Ferroflow gRPC endpoint"),
            "{message}"
        );

        let broke = map_error("https://h", std::io::Error::other("broken pipe"));
        let status = Status::from_error(Box::new(broke));
        assert_eq!(status.code(), Code::Unavailable);
        let message = status.message();
        assert!(
            message.contains("to https://h broke (broken pipe)"),
            "{message}"
        );
    }
}
