//! Between `google.protobuf.Value` and JSON.
//!
//! Protobuf has doubles only. A whole double within ±2^53 becomes a JSON integer, because clients
//! that expect an `int` would fail on `3.0`.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};
use serde_json::Map;

/// A protobuf value as JSON; NaN and infinities, which JSON lacks, become their names.
pub fn to_json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::NumberValue(number)) => number_to_json(*number),
        Some(Kind::StringValue(text)) => serde_json::Value::String(text.clone()),
        Some(Kind::BoolValue(flag)) => serde_json::Value::Bool(*flag),
        Some(Kind::StructValue(fields)) => serde_json::Value::Object(struct_to_map(fields)),
        Some(Kind::ListValue(list)) => {
            serde_json::Value::Array(list.values.iter().map(to_json).collect())
        }
    }
}

fn number_to_json(number: f64) -> serde_json::Value {
    ferroflow_types::json::number(number).map_or_else(
        || serde_json::Value::String(number.to_string()),
        serde_json::Value::Number,
    )
}

/// Whether NaN or an infinity is somewhere in the value: JSON has no such numbers.
pub fn has_non_finite(value: &Value) -> bool {
    match &value.kind {
        Some(Kind::NumberValue(number)) => !number.is_finite(),
        Some(Kind::StructValue(fields)) => fields.fields.values().any(has_non_finite),
        Some(Kind::ListValue(list)) => list.values.iter().any(has_non_finite),
        _ => false,
    }
}

/// JSON as a protobuf value.
pub fn from_json(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(flag) => Kind::BoolValue(*flag),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => Kind::ListValue(ListValue {
            values: items.iter().map(from_json).collect(),
        }),
        serde_json::Value::Object(fields) => Kind::StructValue(map_to_struct(fields)),
    };
    Value { kind: Some(kind) }
}

/// The fields of a protobuf struct as JSON.
pub fn struct_to_map(fields: &Struct) -> Map<String, serde_json::Value> {
    fields
        .fields
        .iter()
        .map(|(name, value)| (name.clone(), to_json(value)))
        .collect()
}

/// A JSON object as a protobuf struct.
pub fn map_to_struct(fields: &Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: fields
            .iter()
            .map(|(name, value)| (name.clone(), from_json(value)))
            .collect(),
    }
}

/// Milliseconds since the epoch as a protobuf timestamp.
pub fn timestamp(millis: i64) -> Timestamp {
    let nanos = i32::try_from(millis.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    Timestamp {
        seconds: millis.div_euclid(1000),
        nanos,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_up_to_two_to_the_53rd_come_back_as_they_are() {
        for text in [
            "9007199254740991",
            "-9007199254740992",
            "3",
            "-0.0",
            "1e300",
        ] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(to_json(&from_json(&value)), value);
        }
    }

    #[test]
    fn json_and_back_is_the_same() {
        let value = json!({"a": [1, 2.5, "x", null, true], "b": {"c": {}}});

        assert_eq!(to_json(&from_json(&value)), value);
    }
}
