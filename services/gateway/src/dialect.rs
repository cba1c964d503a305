//! How the clients of an API expect to be read and answered: leniency, JSON, errors.
//!
//! The contracts say what a request is; a dialect says what is let pass in it and what an answer
//! looks like. A dialect is one file: it begins from the defaults here, which are those of
//! `google.api.http` read strictly, and overrides what its clients rely on.

mod ferroflow;
mod kfp;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use prost_reflect::{DeserializeOptions, EnumDescriptor, Kind, SerializeOptions};
use tonic::{Code, Status};

use crate::contracts::Contracts;
use crate::error;

/// What differs between APIs that are transcoded alike.
pub(crate) trait Dialect: Send + Sync {
    /// The beginnings of the paths that are in this dialect.
    fn roots(&self) -> &'static [&'static str];

    /// Whether parameters that mean nothing are ignored: unknown ones, those that the path or the
    /// body gives already, and a body where there is none.
    fn ignores_surplus(&self) -> bool {
        false
    }

    /// Whether `name=` is the same as no such parameter, of what kind it is.
    fn empty_is_absent(&self, _kind: &Kind) -> bool {
        false
    }

    /// Whether a parameter may come again after its default, `page_size=0&page_size=5`.
    fn takes_after_default(&self) -> bool {
        false
    }

    /// Whether an entry of a map may be a parameter, `name[key]=value`.
    fn takes_map_entries(&self) -> bool {
        false
    }

    /// Whether a body is read as JSON whatever it says that it is.
    fn takes_any_content_type(&self) -> bool {
        false
    }

    /// A boolean parameter.
    fn boolean(&self, text: &str) -> Option<bool> {
        text.parse().ok()
    }

    /// An enum parameter: by name as it is written, or by number, known or not.
    fn enumeration(&self, of: &EnumDescriptor, text: &str) -> Option<i32> {
        let known = of.get_value_by_name(text).map(|value| value.number());
        known.or_else(|| text.parse().ok())
    }

    /// A duration parameter as JSON has it, `1.5s`.
    fn duration(&self, text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// How JSON bodies are read.
    fn input(&self) -> DeserializeOptions {
        DeserializeOptions::new().deny_unknown_fields(true)
    }

    /// Metadata of the call that only the request's JSON tells.
    fn metadata(&self, _method: &Method, _body: &[u8]) -> HeaderMap {
        HeaderMap::new()
    }

    /// How messages are written: field names, defaults, enums, long integers.
    fn output(&self) -> SerializeOptions {
        SerializeOptions::new().use_proto_field_name(true)
    }

    /// The status for a path that has other methods than the request's.
    fn wrong_method(&self) -> StatusCode {
        StatusCode::METHOD_NOT_ALLOWED
    }

    /// The answer to a call that failed.
    fn error(&self, status: &Status, contracts: &Contracts) -> Response<Body> {
        error::response(status, contracts)
    }

    /// The answer to a request that no RPC takes.
    fn unroutable(&self, status: StatusCode, code: Code, message: &str) -> Response<Body> {
        error::refuse(status, code, message)
    }
}

/// In the order in which a path is looked for; the last has every path.
const DIALECTS: [&dyn Dialect; 2] = [&kfp::Kfp, &ferroflow::Ferroflow];

/// The dialect of a path.
pub(crate) fn for_path(path: &str) -> &'static dyn Dialect {
    let speaks =
        |dialect: &&&dyn Dialect| dialect.roots().iter().any(|root| path.starts_with(root));
    DIALECTS
        .iter()
        .find(speaks)
        .copied()
        .unwrap_or(&ferroflow::Ferroflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_dialect() {
        for path in [
            "/apis/v2beta1/runs",
            "/apis/v1beta1/healthz",
            "/apis/v1alpha1/runs/7/nodes/9/log",
        ] {
            assert_eq!(
                for_path(path).wrong_method(),
                StatusCode::NOT_IMPLEMENTED,
                "{path}"
            );
        }
        for path in [
            "/apis/ferroflow/v1/events",
            "/apis/v2beta10/runs",
            "/",
            "",
            "/x",
        ] {
            assert_eq!(
                for_path(path).wrong_method(),
                StatusCode::METHOD_NOT_ALLOWED,
                "{path}"
            );
        }
    }

    #[test]
    fn every_path_is_in_a_dialect() {
        let last = DIALECTS.last().unwrap();
        assert_eq!(last.roots(), ["/"]);
    }

    #[test]
    fn the_defaults_are_strict() {
        let ours = for_path("/apis/ferroflow/v1/events");
        assert!(!ours.ignores_surplus() && !ours.empty_is_absent(&Kind::String));
        assert!(!ours.takes_after_default());
        assert!(!ours.takes_map_entries() && !ours.takes_any_content_type());
        assert_eq!(
            (ours.boolean("true"), ours.boolean("1")),
            (Some(true), None)
        );
        let pool = ferroflow_proto::pool();
        let of = pool
            .get_enum_by_name("ferroflow.pipelines.v1.TaskState")
            .unwrap();
        for (text, expected) in [
            ("FAILED", Some(6)),
            ("6", Some(6)),
            ("99", Some(99)),
            ("failed", None),
            ("", None),
        ] {
            assert_eq!(ours.enumeration(&of, text), expected, "{text}");
        }
    }
}
