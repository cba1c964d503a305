//! Messages as JSON.

use ferroflow_types::json;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tonic::Status;

use crate::dialect::Dialect;

/// An RPC's encoded answer as clients of a dialect read it.
pub(crate) fn to_json(
    dialect: &dyn Dialect,
    method: &MethodDescriptor,
    bytes: &[u8],
) -> Result<Value, Status> {
    let message = DynamicMessage::decode(method.output(), bytes)
        .map_err(|error| Status::internal(format!("the service's message is broken: {error}")))?;
    message_json(dialect, &message)
}

/// A message as clients of a dialect read it, whole numbers without fraction.
pub(super) fn message_json(
    dialect: &dyn Dialect,
    message: &DynamicMessage,
) -> Result<Value, Status> {
    message
        .serialize_with_options(serde_json::value::Serializer, &dialect.output())
        .map(whole_numbers)
        .map_err(|error| Status::internal(format!("the service's message has no JSON: {error}")))
}

/// Protobuf's free-form values have doubles only; clients expect `3` where `3` was given.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let double = number.as_f64().filter(|_| number.is_f64());
            Value::Number(double.and_then(json::number).unwrap_or(number))
        }
        Value::Array(items) => items.into_iter().map(whole_numbers).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, whole_numbers(value)))
            .collect(),
        other => other,
    }
}
