//! What answers at the endpoint and is no platform: another server, or a proxy that has none behind it.

use std::error::Error;
use std::fmt;

use http::{Response, StatusCode, header};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::BoxError;

/// What the transport says when the answer is no HTTP/2.
const NO_HTTP2: &[&str] = &[
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
pub(super) fn says(error: &(dyn Error + 'static), words: &[&str]) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let said = format!("{error} {error:?}");
        if words.iter().any(|word| said.contains(word)) {
            return true;
        }
        next = error.source();
    }
    false
}

fn not_ours(endpoint: &str, answered: &str) -> CallError {
    let other = match endpoint.strip_prefix("http://") {
        Some(rest) => format!(", or https://{rest} if it speaks TLS"),
        None => String::new(),
    };
    // Not one of the codes after which a platform is waited for.
    let status = Status::failed_precondition(format!(
        "what answers at {endpoint} is not a Ferroflow gRPC endpoint ({answered}): name the \
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
pub(super) fn of_error(endpoint: &str, error: impl Into<BoxError>) -> CallError {
    let error = error.into();
    if says(error.as_ref(), NO_HTTP2) {
        return not_ours(endpoint, "it does not answer in HTTP/2");
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
pub(super) fn of_answer(
    endpoint: &str,
    answer: Response<Body>,
) -> Result<Response<Body>, CallError> {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let status = answer.status();
    // What a proxy says of a platform that is away, or of who may call, is told by its code.
    let is_page = status.is_success()
        || status.is_redirection()
        || matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        );
    if !is_page || kind.starts_with("application/grpc") {
        return Ok(answer);
    }
    let kind = if kind.is_empty() { "no content" } else { kind };
    Err(not_ours(
        endpoint,
        &format!("it answers with {status}, {kind}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, kind: &'static str) -> Result<Response<Body>, String> {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        let kind = header::HeaderValue::from_static(kind);
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        of_answer("http://h:1", answer).map_err(|error| error.to_string())
    }

    #[test]
    fn pages_are_no_answers_and_what_proxies_say_is_kept() {
        for (status, kind) in [
            (200, "application/grpc"),
            (503, "text/html"),
            (401, "text/html"),
        ] {
            assert!(answer(status, kind).is_ok(), "{status} {kind}");
        }
        let said = answer(404, "text/html").unwrap_err();
        assert!(
            said.contains("http://h:1 is not a Ferroflow gRPC endpoint"),
            "{said}"
        );
        assert!(said.contains("404 Not Found, text/html"), "{said}");
        assert!(answer(200, "text/html").is_err());
    }

    #[test]
    fn an_answer_that_is_no_http2_is_told() {
        let error = std::io::Error::other("connection error detected: frame with invalid size");
        let said = of_error("https://h", error).to_string();

        assert!(
            said.contains("https://h is not a Ferroflow gRPC endpoint"),
            "{said}"
        );

        let broke = of_error("https://h", std::io::Error::other("broken pipe"));
        let status = Status::from_error(Box::new(broke));
        assert_eq!(status.code(), Code::Unavailable);
        let said = status.message();
        assert!(said.contains("to https://h broke (broken pipe)"), "{said}");
    }
}
