//! Path, query and body into the request message.

use ferroflow_types::json_place;
use prost_reflect::{
    Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    Value,
};
use tonic::Status;

use super::body::Content;
use crate::dialect::Dialect;
use crate::route::Found;

fn invalid(message: String) -> Status {
    Status::invalid_argument(message)
}

/// The request message. Order: body, path, query.
pub(super) fn bind(
    found: &Found<'_>,
    query: &str,
    content: &Content,
    dialect: &dyn Dialect,
) -> Result<DynamicMessage, Status> {
    let binding = found.binding;
    let mut message = DynamicMessage::new(binding.method.input());
    bind_body(&mut message, &binding.body, content, dialect)?;
    for (path, text) in &found.variables {
        set(&mut message, path, text, dialect, Origin::Path)?;
    }
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let bound = found.variables.iter().any(|(path, _)| *path == name);
        let in_body = match binding.body.as_str() {
            "" => false,
            "*" => true,
            field => name == field || name.starts_with(&format!("{field}.")),
        };
        if bound || in_body {
            if dialect.ignores_surplus() {
                continue;
            }
            return Err(invalid(format!(
                "query parameter {name} is given in the path or body"
            )));
        }
        set(&mut message, &name, &value, dialect, Origin::Query)?;
    }
    Ok(message)
}

fn bind_body(
    message: &mut DynamicMessage,
    field: &str,
    content: &Content,
    dialect: &dyn Dialect,
) -> Result<(), Status> {
    let body = content.bytes.trim_ascii();
    if body.is_empty() {
        return Ok(());
    }
    match field {
        // Clients of KFP send `{}` or nothing where there is no body.
        "" if dialect.ignores_surplus() => Ok(()),
        "" => Err(invalid("this request has no body".to_owned())),
        "*" if is_http_body(&message.descriptor()) => {
            *message = raw(&message.descriptor(), content);
            Ok(())
        }
        "*" => {
            *message = decode(&message.descriptor(), body, dialect)?;
            Ok(())
        }
        name => {
            let descriptor = message.descriptor();
            let Some(field) = descriptor.get_field_by_name(name) else {
                return Err(Status::internal(
                    "the http rule names a field that is not there",
                ));
            };
            let value = match field.kind() {
                Kind::Message(inner) if is_http_body(&inner) => {
                    Value::Message(raw(&inner, content))
                }
                Kind::Message(inner) => Value::Message(decode(&inner, body, dialect)?),
                _ => scalar(&field.kind(), &json_text(body)?, dialect)
                    .ok_or_else(|| invalid(format!("body: not a value of {name}")))?,
            };
            message.set_field(&field, value);
            Ok(())
        }
    }
}

/// Whether a message is the bytes of a body, and no JSON.
pub(super) fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}

/// A body as it is.
fn raw(descriptor: &MessageDescriptor, content: &Content) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name("content_type", Value::String(content.kind.clone()));
    message.set_field_by_name("data", Value::Bytes(content.bytes.clone()));
    message
}

/// The text of a body that is one JSON string.
fn json_text(body: &[u8]) -> Result<String, Status> {
    serde_json::from_slice(body).map_err(|error| invalid(format!("body: {error}")))
}

fn decode(
    descriptor: &MessageDescriptor,
    body: &[u8],
    dialect: &dyn Dialect,
) -> Result<DynamicMessage, Status> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let options = dialect.input();
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut json, &options)
        .map_err(|error| {
            let (name, problem) = (descriptor.name(), problem(body, &error));
            invalid(format!("the body is not a {name}: {problem}"))
        })?;
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Path,
    Query,
}

/// Sets the field at a path such as `a.b.c` from text.
fn set(
    message: &mut DynamicMessage,
    path: &str,
    text: &str,
    dialect: &dyn Dialect,
    origin: Origin,
) -> Result<(), Status> {
    let (head, tail) = match path.split_once('.') {
        Some((head, tail)) => (head, Some(tail)),
        None => (path, None),
    };
    let descriptor = message.descriptor();
    let field = descriptor
        .get_field_by_name(head)
        .or_else(|| descriptor.get_field_by_json_name(head));
    let Some(field) = field else {
        return if dialect.ignores_surplus() && origin == Origin::Query {
            Ok(())
        } else {
            Err(invalid(format!("unknown parameter {path}")))
        };
    };
    let Some(tail) = tail else {
        return set_leaf(message, &field, path, text, dialect, origin);
    };
    if !matches!(field.kind(), Kind::Message(_)) || field.is_list() || field.is_map() {
        return Err(invalid(format!("parameter {path}: {head} has no fields")));
    }
    match message.get_field_mut(&field) {
        Value::Message(inner) => set(inner, tail, text, dialect, origin),
        _ => Err(Status::internal("a message field holds no message")),
    }
}

fn set_leaf(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    path: &str,
    text: &str,
    dialect: &dyn Dialect,
    origin: Origin,
) -> Result<(), Status> {
    if field.is_map() {
        return Err(invalid(format!(
            "parameter {path}: maps cannot be given in a query"
        )));
    }
    let value = scalar(&field.kind(), text, dialect).ok_or_else(|| {
        invalid(format!(
            "parameter {path}: {text:?} is not a {:?}",
            field.kind()
        ))
    })?;
    if field.cardinality() == Cardinality::Repeated {
        if let Value::List(list) = message.get_field_mut(field) {
            list.push(value);
        }
        return Ok(());
    }
    let given = message.has_field(field);
    if given && origin == Origin::Query {
        return Err(invalid(format!("parameter {path} is given twice")));
    }
    if given && *message.get_field(field) != value {
        return Err(invalid(format!(
            "{path} differs between the path and the body"
        )));
    }
    // Clients of KFP send empty parameters for what they leave out.
    if !(dialect.empty_is_absent() && text.is_empty()) {
        message.set_field(field, value);
    }
    Ok(())
}

/// Text as a value of a kind.
fn scalar(kind: &Kind, text: &str, dialect: &dyn Dialect) -> Option<Value> {
    Some(match kind {
        Kind::String => Value::String(text.to_owned()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(text.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(text.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(text.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(text.parse().ok()?),
        Kind::Double => Value::F64(text.parse().ok()?),
        Kind::Float => Value::F32(text.parse().ok()?),
        Kind::Bool => Value::Bool(dialect.boolean(text)?),
        Kind::Enum(of) => Value::EnumNumber(dialect.enumeration(of, text)?),
        Kind::Bytes => {
            use base64::Engine as _;
            let engine = base64::engine::general_purpose::STANDARD;
            Value::Bytes(engine.decode(text).ok()?.into())
        }
        // Timestamps, durations, wrappers and the like have a JSON form that is one text.
        Kind::Message(message) => {
            let json = serde_json::Value::String(text.to_owned());
            let parsed = DynamicMessage::deserialize(message.clone(), json).ok();
            let parsed = parsed.or_else(|| {
                let json: serde_json::Value = serde_json::from_str(text).ok()?;
                DynamicMessage::deserialize(message.clone(), json).ok()
            });
            Value::Message(parsed?)
        }
    })
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
        let content = Content {
            kind: "application/json".to_owned(),
            bytes: body.to_owned().into(),
        };
        let message = bind(&found, query, &content, dialect::of(path));
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
