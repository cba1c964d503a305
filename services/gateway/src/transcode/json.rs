//! Messages as JSON.

use ferroflow_types::json::number;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MethodDescriptor};
use serde_json::{Value, json};
use tonic::Status;

use crate::dialect::Dialect;
use crate::error::broken_message;

/// An RPC's encoded answer as clients of a dialect read it.
pub(crate) fn to_json(
    dialect: &dyn Dialect,
    method: &MethodDescriptor,
    bytes: &[u8],
) -> Result<Value, Status> {
    let message = DynamicMessage::decode(method.output(), bytes).map_err(broken_message)?;
    message_json(dialect, &message)
}

/// An RPC's encoded answer as a binding shows it: the whole, or one field.
pub(super) fn answer_json(
    dialect: &dyn Dialect,
    method: &MethodDescriptor,
    field: Option<&FieldDescriptor>,
    bytes: &[u8],
) -> Result<Value, Status> {
    let whole = to_json(dialect, method, bytes)?;
    Ok(select_field(whole, field))
}

/// What of a message's JSON a binding shows.
pub(super) fn select_field(whole: Value, field: Option<&FieldDescriptor>) -> Value {
    match field {
        None => whole,
        Some(field) => field_json(whole, field),
    }
}

/// One field of a message's JSON, its default where the message has none.
fn field_json(whole: Value, field: &FieldDescriptor) -> Value {
    let mut fields = match whole {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    // Under the name that the dialect writes. Defaults are not written at all.
    let found = fields.remove(field.name());
    let found = found.or_else(|| fields.remove(field.json_name()));
    found.unwrap_or_else(|| match field.kind() {
        _ if field.is_map() => json!({}),
        _ if field.is_list() => json!([]),
        Kind::Message(_) => Value::Null,
        Kind::Bool => json!(false),
        Kind::String | Kind::Bytes => json!(""),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => json!("0"),
        Kind::Enum(of) => json!(of.default_value().name()),
        _ => json!(0),
    })
}

/// A message as clients of a dialect read it, whole numbers without fraction.
pub(super) fn message_json(
    dialect: &dyn Dialect,
    message: &DynamicMessage,
) -> Result<Value, Status> {
    message
        .serialize_with_options(serde_json::value::Serializer, &dialect.output())
        .map(whole_numbers)
        .map_err(broken_message)
}

/// Protobuf's free-form values have doubles only; clients expect `3` where `3` was given.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(given) => {
            let double = given.as_f64().filter(|_| given.is_f64());
            Value::Number(double.and_then(number).unwrap_or(given))
        }
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, whole_numbers(value)))
            .collect(),
        other => other,
    }
}
