//! Queries and bodies that nobody meant.

use axum::http::Method;
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _};

use super::bind::bind;
use super::body::RequestBody;
use super::json::message_json;
use crate::dialect::{self, Dialect};
use crate::fuzz::{ROUTES, fuzz};
use crate::route::RouteMatch;

fn content(body: &str) -> RequestBody {
    RequestBody {
        kind: "application/json".to_owned(),
        bytes: body.to_owned().into(),
    }
}

/// Binds, and what is bound is a message that can be sent and shown.
fn is_bound(found: &RouteMatch<'_>, query: &str, body: &str, dialect: &dyn Dialect) -> bool {
    let Ok(message) = bind(found, query, &content(body), dialect) else {
        return false;
    };
    let bytes = message.encode_to_vec();
    let again = DynamicMessage::decode(message.descriptor(), bytes.as_slice()).unwrap();
    assert_eq!(again.encoded_len(), bytes.len(), "{query:?} {body:?}");
    assert!(message_json(dialect, &again).is_ok(), "{query:?} {body:?}");
    true
}

#[test]
fn queries() {
    let dictionary = [
        "&",
        "=",
        "+",
        "%",
        "%20",
        "[",
        "]",
        ".",
        "inner.",
        "deeper.",
        "int32=1",
        "color=",
        "time=",
        "duration=1h",
        "labels[k]=v",
        "counts[1]=2",
        "one=a",
        "third.size=1",
        "struct={}",
        "1e999",
        "value=[",
        "data=_-8",
        "9999999999999999999999",
    ];
    fuzz(
        "queries",
        include_str!("../../tests/corpus/queries.txt"),
        &dictionary,
        |query| {
            let targets = ["/v1/query", "/apis/v2beta1/query"];
            let bound = targets.map(|path| {
                let found = ROUTES.find(&Method::GET, path).ok().unwrap();
                is_bound(&found, query, "", dialect::for_path(path))
            });
            bound.contains(&true)
        },
    );
}

#[test]
fn bodies() {
    let dictionary = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "null",
        "true",
        "1e400",
        "-0.0",
        "1.5",
        "\\u0000",
        "\\ud800",
        "\"inner\":",
        "\"deeper\":{",
        "\"int64\":\"1\"",
        "\"pageSize\":1",
        "NaN",
        "\"@type\":",
        "\"labels\":{\"a\":",
        "[[[[[[[[[[[[[[[[",
        "{\"inner\":{\"deeper\":{\"deeper\":",
    ];
    fuzz(
        "bodies",
        include_str!("../../tests/corpus/bodies.txt"),
        &dictionary,
        |body| {
            let targets = [
                (Method::POST, "/v1/whole/x"),
                (Method::PATCH, "/apis/v2beta1/part/x"),
                (Method::PUT, "/v1/texts"),
                (Method::PUT, "/v1/labels"),
            ];
            let bound = targets.map(|(method, path)| {
                let found = ROUTES.find(&method, path).ok().unwrap();
                is_bound(&found, "", body, dialect::for_path(path))
            });
            bound.contains(&true)
        },
    );
}
