//! Kubeflow Pipelines: what its clients expect of grpc-gateway, behind which its server is.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::Dialect;

/// Paths of KFP's API, in every version that clients ask for.
pub(super) struct Kfp;

impl Dialect for Kfp {
    fn roots(&self) -> &'static [&'static str] {
        &["/apis/v2beta1/", "/apis/v1beta1/", "/apis/v1alpha1/"]
    }

    /// Clients send `{}` where there is no body, and parameters of other versions.
    fn ignores_surplus(&self) -> bool {
        true
    }

    /// Clients send empty parameters for what they leave out.
    fn empty_is_absent(&self) -> bool {
        true
    }

    /// As Go's `strconv.ParseBool`.
    fn boolean(&self, text: &str) -> Option<bool> {
        match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
            _ => None,
        }
    }

    /// Protobuf cannot tell empty tags from none: KFP's server says with a header that they are
    /// given and empty (`clearTagsMiddleware`).
    fn metadata(&self, method: &Method, body: &[u8]) -> HeaderMap {
        let mut metadata = HeaderMap::new();
        if method == Method::PATCH && clears_tags(body) {
            metadata.insert(
                HeaderName::from_static("x-clear-tags"),
                HeaderValue::from_static("true"),
            );
        }
        metadata
    }

    /// As grpc-gateway.
    fn wrong_method(&self) -> StatusCode {
        StatusCode::NOT_IMPLEMENTED
    }
}

/// Whether tags are given and empty.
fn clears_tags(body: &[u8]) -> bool {
    let parsed: Result<Value, _> = serde_json::from_slice(body);
    parsed.is_ok_and(|body| {
        body.get("tags")
            .and_then(Value::as_object)
            .is_some_and(serde_json::Map::is_empty)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_go() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(Kfp.boolean(text), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(Kfp.boolean(text), Some(false), "{text}");
        }
        for text in ["", "yes", "tRUE", "2"] {
            assert_eq!(Kfp.boolean(text), None, "{text}");
        }
    }

    #[test]
    fn only_tags_that_are_given_and_empty_are_cleared() {
        let clears = |method, body: &str| {
            let metadata = Kfp.metadata(&method, body.as_bytes());
            metadata.get("x-clear-tags").is_some()
        };
        assert!(clears(
            Method::PATCH,
            r#"{"display_name": "q", "tags": {}}"#
        ));
        for body in [
            r#"{"tags": {"a": "b"}}"#,
            "{}",
            "",
            "[",
            r#"{"tags": null}"#,
        ] {
            assert!(!clears(Method::PATCH, body), "{body}");
        }
        assert!(!clears(Method::POST, r#"{"tags": {}}"#));
    }
}
