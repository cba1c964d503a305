//! Content that users made, as browsers may have it.
//!
//! It comes from the same address as the API, so it gets an origin of its own (CSP `sandbox`): no
//! script of a report can call the API as the one who looks at it, or read what belongs to our
//! pages. `nosniff` keeps it what it says it is. What browsers cannot show safely is saved.

use axum::body::Body;
use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pulldown_cmark::{Options, Parser, html};
use tonic::Status;

use crate::error::broken_message;

/// Reports run scripts of their own, and load those of the libraries that drew them.
const REPORT_POLICY: &str = "sandbox allow-scripts allow-popups; default-src 'none'; \
    script-src 'unsafe-inline' 'unsafe-eval' blob: https:; style-src 'unsafe-inline' https:; \
    img-src data: blob: https:; font-src data: https:; media-src data: blob: https:; \
    connect-src data: blob: https:; worker-src blob:; base-uri 'none'; form-action 'none'";

/// Texts and images have no scripts.
const STATIC_POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; \
    img-src data: https:; base-uri 'none'; form-action 'none'";

/// Longer Markdown is shown as the text that it is.
const MARKDOWN_MAX: usize = 4 * 1024 * 1024;

/// Characters of a file's name that need no escape (RFC 8187, attr-char).
const FILE_NAME_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'~');

const PAGE_STYLE: &str = "body{font:16px/1.6 system-ui,sans-serif;max-width:50rem;\
    margin:2rem auto;padding:0 1rem;color-scheme:light dark}table{border-collapse:collapse}\
    td,th{border:1px solid #8886;padding:.2rem .6rem}pre,code{background:#8882}pre code{background:none}\
    pre{padding:.6rem;overflow:auto}img{max-width:100%}";

/// The type without its parameters.
fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

/// Whether browsers show it, and under which policy.
fn policy(kind: &str) -> Option<&'static str> {
    match essence(kind) {
        "text/html" => Some(REPORT_POLICY),
        "text/plain" | "text/markdown" | "application/json" | "image/svg+xml" | "image/png"
        | "image/jpeg" | "image/gif" | "image/webp" => Some(STATIC_POLICY),
        _ => None,
    }
}

/// `inline` or `attachment`, with the name under which it is saved.
fn disposition(inline: bool, name: &str) -> Option<HeaderValue> {
    let kind = if inline { "inline" } else { "attachment" };
    if name.is_empty() {
        return HeaderValue::from_str(kind).ok();
    }
    // For readers that do not know `filename*` (RFC 6266), a name of plain characters.
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let encoded = utf8_percent_encode(name, FILE_NAME_ESCAPES);
    HeaderValue::from_str(&format!(
        "{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
    ))
    .ok()
}

/// The response for content: its type, its file's name, its bytes.
pub(super) async fn respond(
    kind: &str,
    name: &str,
    mut bytes: impl Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static,
    request: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let wants_html = request
        .get(axum::http::header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    let (kind, policy, body) = if essence(kind) == "text/markdown" && wants_html {
        // HTML in Markdown is kept as it is: the policy `STATIC_POLICY` lets no script in it run.
        match read_text(&mut bytes).await? {
            Ok(text) => (
                "text/html; charset=utf-8",
                Some(STATIC_POLICY),
                Body::from(page(&text)),
            ),
            Err(beginning) => {
                let beginning = futures::stream::iter([Ok(beginning)]);
                let body = Body::from_stream(beginning.chain(bytes));
                ("text/plain; charset=utf-8", Some(STATIC_POLICY), body)
            }
        }
    } else {
        (kind, policy(kind), Body::from_stream(bytes))
    };
    let mut response = Response::new(body);
    let mut set = |name: HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    };
    // The type comes from the service; one that cannot be a header is an error.
    let kind = HeaderValue::from_str(kind).map_err(broken_message)?;
    set(CONTENT_TYPE, Some(kind));
    set(
        X_CONTENT_TYPE_OPTIONS,
        Some(HeaderValue::from_static("nosniff")),
    );
    set(
        REFERRER_POLICY,
        Some(HeaderValue::from_static("no-referrer")),
    );
    // Markdown is a page or a text, by the request's `Accept`.
    set(VARY, Some(HeaderValue::from_static("accept")));
    set(
        CONTENT_SECURITY_POLICY,
        Some(HeaderValue::from_static(policy.unwrap_or(STATIC_POLICY))),
    );
    set(CONTENT_DISPOSITION, disposition(policy.is_some(), name));
    Ok(response)
}

/// All of a text, or what was read when it got too long.
async fn read_text(
    bytes: &mut (impl Stream<Item = Result<Bytes, Status>> + Unpin),
) -> Result<Result<String, Bytes>, Status> {
    let mut read = BytesMut::new();
    while let Some(piece) = bytes.next().await {
        read.extend_from_slice(&piece?);
        if read.len() > MARKDOWN_MAX {
            return Ok(Err(read.freeze()));
        }
    }
    Ok(Ok(String::from_utf8_lossy(&read).into_owned()))
}

/// Markdown as a page.
fn page(text: &str) -> String {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut page = format!("<!doctype html><meta charset=\"utf-8\"><style>{PAGE_STYLE}</style>");
    html::push_html(&mut page, Parser::new_ext(text, options));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_survive_in_both_forms() {
        let header = disposition(false, "Größe \"1\".bin").unwrap();

        assert_eq!(
            header.to_str().unwrap(),
            "attachment; filename=\"Gr__e__1_.bin\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%221%22.bin"
        );
        assert_eq!(disposition(true, "").unwrap(), "inline");
    }

    #[test]
    fn everything_that_is_shown_has_an_origin_of_its_own() {
        for kind in [
            "text/html; charset=utf-8",
            "text/plain",
            "image/svg+xml",
            "image/png",
        ] {
            assert!(policy(kind).unwrap().starts_with("sandbox"), "{kind}");
        }
        assert!(!STATIC_POLICY.contains("script"));
        assert!(!REPORT_POLICY.contains("allow-same-origin"));
        assert_eq!(policy("application/octet-stream"), None);
        assert_eq!(policy("application/pdf"), None);
    }

    #[test]
    fn markdown_becomes_a_page() {
        let page = page("# T\n\n| a |\n|---|\n| 1 |\n");

        assert!(
            page.contains("<h1>T</h1>") && page.contains("<td>1</td>"),
            "{page}"
        );
    }
}
