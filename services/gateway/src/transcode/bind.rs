//! Path, query and body into the request message.

use std::collections::HashSet;

use ferroflow_types::json_place;
use percent_encoding::percent_decode_str;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use tonic::Status;

use super::body::RequestBody;
use super::field::{FieldPath, FieldPathError, Origin};
use super::unique::{self, Shape};
use crate::dialect::Dialect;
use crate::error::defect;
use crate::route::{RouteMatch, has_good_escapes};

pub(super) fn invalid(message: String) -> Status {
    Status::invalid_argument(message)
}

/// The request message. Order: body, path, query.
pub(super) fn bind(
    found: &RouteMatch<'_>,
    query: &str,
    content: &RequestBody,
    dialect: &dyn Dialect,
) -> Result<DynamicMessage, Status> {
    let binding = found.binding;
    let descriptor = binding.method.input();
    let mut message = DynamicMessage::new(descriptor.clone());
    // First, as a body of `*` replaces the whole message.
    bind_body(&mut message, &binding.body, content, dialect)?;
    let mut given = HashSet::new();
    for (path, text) in &found.variables {
        let field_path = find_field(&descriptor, path)?;
        field_path.set(&mut message, text, Origin::Path, dialect)?;
        given.insert(field_path.name());
    }
    // What the path gives; `given` goes on to collect the names of the query.
    let path_fields = given.clone();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match decode_query(name) {
            Some(name) => name,
            // No field has a name that is not UTF-8: the parameter is unknown.
            None if dialect.ignores_surplus() => continue,
            None => return Err(invalid(bad_escape("the query", name))),
        };
        let field_path = match FieldPath::find(&descriptor, &name) {
            Ok(found) => found,
            Err(FieldPathError::Unknown) if dialect.ignores_surplus() => continue,
            Err(problem) => return Err(field_path_error(&name, &problem)),
        };
        let in_body = match binding.body.as_str() {
            "" => false,
            "*" => true,
            field => field_path.first() == field,
        };
        if in_body || path_fields.contains(&field_path.name()) {
            if dialect.ignores_surplus() {
                continue;
            }
            return Err(invalid(format!(
                "query parameter {name} is given in the path or body"
            )));
        }
        if field_path.is_entry() && !dialect.takes_map_entries() {
            return Err(invalid(format!(
                "parameter {name}: maps cannot be given in a query"
            )));
        }
        // Only here: the value of a parameter that is ignored may be malformed.
        let value = decode_query(value)
            .ok_or_else(|| invalid(bad_escape(&format!("parameter {name}"), value)))?;
        if value.is_empty() && !field_path.is_list() && dialect.empty_is_absent(&field_path.kind())
        {
            continue;
        }
        // Without explicit presence a default counts as not set, so KFP's dialect takes a value
        // after it.
        let is_repeated = !given.insert(field_path.name()) && !field_path.is_list();
        if is_repeated && (field_path.is_set(&message) || !dialect.takes_after_default()) {
            return Err(invalid(format!("parameter {name} is given twice")));
        }
        field_path.set(&mut message, &value, Origin::Query, dialect)?;
    }
    Ok(message)
}

fn find_field(descriptor: &MessageDescriptor, name: &str) -> Result<FieldPath, Status> {
    FieldPath::find(descriptor, name).map_err(|problem| field_path_error(name, &problem))
}

fn field_path_error(name: &str, problem: &FieldPathError) -> Status {
    invalid(match problem {
        FieldPathError::Unknown => format!("unknown parameter {name}"),
        FieldPathError::NoFields(outer) => format!("parameter {name}: {outer} has no fields"),
    })
}

/// A name or value of a query, unless an escape in it is malformed or none of UTF-8.
fn decode_query(text: &str) -> Option<String> {
    if !has_good_escapes(text) {
        return None;
    }
    // Before escapes are decoded, so that `%2B` stays a plus.
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

fn bad_escape(of: &str, text: &str) -> String {
    format!("{of}: {text:?} has a bad escape: percent-encode the bytes of UTF-8, and % as %25")
}

fn bind_body(
    message: &mut DynamicMessage,
    field: &str,
    content: &RequestBody,
    dialect: &dyn Dialect,
) -> Result<(), Status> {
    let descriptor = message.descriptor();
    let body = content.bytes.trim_ascii();
    if body.is_empty() {
        return Ok(());
    }
    match field {
        "" if dialect.ignores_surplus() => Ok(()),
        "" => Err(invalid("this request has no body".to_owned())),
        "*" => {
            *message = if is_http_body(&descriptor) {
                http_body_message(&descriptor, content)
            } else {
                decode(&descriptor, body, dialect)?
            };
            Ok(())
        }
        name => {
            let field = descriptor.get_field_by_name(name);
            let field =
                field.ok_or_else(|| defect("the http rule names a field that is not there"))?;
            match field.kind() {
                Kind::Message(inner) if is_http_body(&inner) && !field.is_list() => {
                    message.set_field(&field, Value::Message(http_body_message(&inner, content)));
                }
                Kind::Message(inner) if !field.is_list() && !field.is_map() => {
                    let inner = decode(&inner, body, dialect)?;
                    message.set_field(&field, Value::Message(inner));
                }
                _ => *message = decode_field(&descriptor, &field, body, dialect)?,
            }
            Ok(())
        }
    }
}

/// Whether a message is the bytes of a body, and no JSON.
pub(super) fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}

/// A body as it is.
fn http_body_message(descriptor: &MessageDescriptor, content: &RequestBody) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name("content_type", Value::String(content.kind.clone()));
    message.set_field_by_name("data", Value::Bytes(content.bytes.clone()));
    message
}

/// A message of which the body is one field: a list, a map or a scalar.
fn decode_field(
    descriptor: &MessageDescriptor,
    field: &FieldDescriptor,
    body: &[u8],
    dialect: &dyn Dialect,
) -> Result<DynamicMessage, Status> {
    let wrong = |problem: String| invalid(format!("the body is not a value of {problem}"));
    let name = field.name();
    unique::check(body, &Shape::of_field(field))
        .map_err(|error| wrong(format!("{name}: {}", problem(body, &error))))?;
    let value: serde_json::Value = serde_json::from_slice(body)
        .map_err(|error| wrong(format!("{name}: {}", problem(body, &error))))?;
    // JSON is decoded into messages only, so the value is put into one that has nothing else.
    let whole = serde_json::Value::Object([(name.to_owned(), value)].into_iter().collect());
    DynamicMessage::deserialize_with_options(descriptor.clone(), whole, &dialect.input())
        .map_err(|error| wrong(format!("{name}: {error}")))
}

fn decode(
    descriptor: &MessageDescriptor,
    body: &[u8],
    dialect: &dyn Dialect,
) -> Result<DynamicMessage, Status> {
    let wrong = |error: serde_json::Error| {
        let (name, problem) = (descriptor.name(), problem(body, &error));
        invalid(format!("the body is not a {name}: {problem}"))
    };
    unique::check(body, &Shape::of_message(descriptor)).map_err(wrong)?;
    let mut json = serde_json::Deserializer::from_slice(body);
    let options = dialect.input();
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut json, &options)
        .map_err(wrong)?;
    json.end()
        .map_err(|error| invalid(format!("text follows the body's JSON: {error}")))?;
    Ok(message)
}

/// What is wrong with a body, by the field where it is.
fn problem(body: &[u8], error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let problem = match json_place::bare_number(body, line, column) {
        Some(number) => format!(
            "JSON has no {number} (line {line} column {column}): leave the value out, or pass it as a text"
        ),
        None => error.to_string(),
    };
    match json_place::place(body, line, column).as_str() {
        "" => problem,
        place => format!("{place}: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::dialect;
    use crate::route::Routes;

    fn bound(method: Method, path: &str, query: &str, body: &str) -> Result<String, String> {
        let routes = Routes::build(ferroflow_proto::pool()).unwrap();
        let found = routes
            .find(&method, path)
            .map_err(|error| format!("{error:?}"))?;
        let content = RequestBody {
            kind: "application/json".to_owned(),
            bytes: body.to_owned().into(),
        };
        let message = bind(&found, query, &content, dialect::for_path(path));
        message
            .map(|message| message.to_string())
            .map_err(|status| status.message().to_owned())
    }

    #[test]
    fn kfp_requests_are_read_as_its_clients_send_them() {
        let runs = "/apis/v2beta1/runs";
        let query = "page_token=&page_size=5&sort_by=created_at+desc&filter=&namespace=&x=1";
        assert_eq!(
            bound(Method::GET, runs, query, "").unwrap(),
            r#"page_size:5,sort_by:"created_at desc""#
        );
        assert_eq!(
            bound(
                Method::POST,
                runs,
                "experiment_id=",
                r#"{"displayName":"r"}"#
            )
            .unwrap(),
            r#"run{display_name:"r"}"#
        );
        assert_eq!(
            bound(
                Method::DELETE,
                "/apis/v2beta1/pipelines/1",
                "cascade=True",
                ""
            )
            .unwrap(),
            r#"pipeline_id:"1",cascade:true"#
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let runs = "/apis/v2beta1/runs";
        for (method, path, query, body, words) in [
            (Method::GET, runs, "page_size=x", "", "page_size"),
            (
                Method::GET,
                runs,
                "page_size=1&page_size=2",
                "",
                "given twice",
            ),
            (
                Method::POST,
                runs,
                "",
                r#"{"display_nam":"r"}"#,
                "display_nam",
            ),
            (Method::POST, runs, "", "{} {}", "follows"),
            (Method::POST, runs, "", "{", "not a Run"),
            (
                Method::POST,
                runs,
                "",
                r#"{"runtime_config":{"parameters":{"lr":NaN}}}"#,
                "not a Run: runtime_config.parameters.lr: JSON has no NaN",
            ),
            (
                Method::POST,
                "/apis/v2beta1/recurringruns",
                "",
                r#"{"trigger":{"cron_schedule":{"start_time":"soon"}}}"#,
                "trigger.cron_schedule.start_time: ",
            ),
            (
                Method::GET,
                "/apis/ferroflow/v1/artifacts",
                "nope=1",
                "",
                "unknown parameter nope",
            ),
            (
                Method::GET,
                "/apis/ferroflow/v1/artifacts",
                "",
                "{}",
                "no body",
            ),
        ] {
            let error = bound(method, path, query, body).unwrap_err();
            assert!(error.contains(words), "{path}?{query} {body}: {error}");
        }
        let pipeline = r#"{"pipeline_id":"2"}"#;
        let error = bound(Method::PATCH, "/apis/v2beta1/pipelines/1", "", pipeline).unwrap_err();
        assert!(error.contains("differs between the path and the body"));
    }

    #[test]
    fn own_requests_take_repeated_and_nested_parameters() {
        let bound = bound(
            Method::GET,
            "/apis/ferroflow/v1/events",
            "types=a&types=b&follow=false",
            "",
        );

        assert_eq!(bound.unwrap(), r#"types:["a","b"],follow:false"#);
    }
}
