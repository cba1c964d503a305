//! Kubeflow Pipelines: what its clients expect of grpc-gateway, behind which its server is.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use prost_reflect::Kind;
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

    /// Clients send empty parameters for the texts that they leave out.
    fn empty_is_absent(&self, kind: &Kind) -> bool {
        matches!(kind, Kind::String)
    }

    /// Former releases did not tell a default that was given from none.
    fn takes_after_default(&self) -> bool {
        true
    }

    fn takes_map_entries(&self) -> bool {
        true
    }

    /// `curl -d` says that it sends a form.
    fn takes_any_content_type(&self) -> bool {
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

    /// As Go's `time.ParseDuration`, or as JSON has it, of which it is the superset.
    fn duration(&self, text: &str) -> Option<String> {
        go_duration(text)
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

    /// 501 as grpc-gateway, where HTTP has 405.
    fn wrong_method(&self) -> StatusCode {
        StatusCode::NOT_IMPLEMENTED
    }
}

/// `-1h2m3.5s` as the seconds of JSON's form.
fn go_duration(text: &str) -> Option<String> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    // Go takes a zero without a unit.
    if rest == "0" {
        return Some("0s".to_owned());
    }
    let mut nanos: i128 = 0;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, next) = after.split_at(end.unwrap_or(after.len()));
        let scale: i128 = match unit {
            "ns" => 1,
            // The micro sign (U+00B5), and the Greek letter (U+03BC).
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Longer ones than a duration can have would overflow.
        if number.len() > 32 || whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return None;
        }
        let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let parts = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        nanos = nanos.checked_add(digits.checked_mul(scale)? / parts)?;
        if next.is_empty() {
            break;
        }
        rest = next;
    }
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    Some(format!("{sign}{seconds}.{nanos:09}s"))
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
    fn durations_are_those_of_go() {
        for (text, expected) in [
            ("1h", Some("3600.000000000s")),
            ("1h2m3.5s", Some("3723.500000000s")),
            ("-1.5s", Some("-1.500000000s")),
            ("+100ms", Some("0.100000000s")),
            (".5s", Some("0.500000000s")),
            ("3µs", Some("0.000003000s")),
            ("0", Some("0s")),
            ("", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("1s ", None),
            ("99999999999999999999999999999999999999999h", None),
        ] {
            assert_eq!(Kfp.duration(text).as_deref(), expected, "{text}");
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
