//! Texts of paths and queries as values.

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};

use crate::contracts::is_wrapper;
use crate::dialect::Dialect;

/// What a text is as a value of a kind, if it is one.
pub(super) fn parse(kind: &Kind, text: &str, dialect: &dyn Dialect) -> Option<Value> {
    Some(match kind {
        Kind::String => Value::String(text.to_owned()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(text.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(text.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(text.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(text.parse().ok()?),
        Kind::Double => Value::F64(double(text)?),
        Kind::Float => Value::F32(float(text)?),
        Kind::Bool => Value::Bool(dialect.boolean(text)?),
        Kind::Enum(of) => Value::EnumNumber(dialect.enumeration(of, text)?),
        Kind::Bytes => Value::Bytes(base64(text)?.into()),
        Kind::Message(message) => Value::Message(well_known(message, text, dialect)?),
    })
}

/// A number that is finite, or what JSON's mapping calls those that are not.
fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // Rust reads `inf` and `nan` as well, and 1e999 as an infinity.
        text => text.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}

fn float(text: &str) -> Option<f32> {
    match text {
        "NaN" => Some(f32::NAN),
        "Infinity" => Some(f32::INFINITY),
        "-Infinity" => Some(f32::NEG_INFINITY),
        text => text.parse().ok().filter(|number: &f32| number.is_finite()),
    }
}

/// Base64 of either alphabet, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) {
        &alphabet::URL_SAFE
    } else {
        &alphabet::STANDARD
    };
    GeneralPurpose::new(alphabet, LENIENT).decode(text).ok()
}

/// A message that has a JSON form of its own, which is one value.
fn well_known(
    message: &MessageDescriptor,
    text: &str,
    dialect: &dyn Dialect,
) -> Option<DynamicMessage> {
    let json = |value| DynamicMessage::deserialize(message.clone(), value).ok();
    let as_text = |text: String| json(serde_json::Value::String(text));
    match message.full_name() {
        "google.protobuf.Timestamp" => as_text(text.to_owned()),
        "google.protobuf.Duration" => as_text(dialect.duration(text)?),
        "google.protobuf.FieldMask" => {
            let mut mask = DynamicMessage::new(message.clone());
            let paths = text.split(',').filter(|path| !path.is_empty());
            let paths = paths.map(|path| snake(path).map(Value::String));
            mask.set_field_by_name("paths", Value::List(paths.collect::<Option<_>>()?));
            Some(mask)
        }
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
            json(serde_json::from_str(text).ok()?)
        }
        _ if is_wrapper(message) => {
            let field = message.get_field_by_name("value")?;
            let value = parse(&field.kind(), text, dialect)?;
            let mut wrapper = DynamicMessage::new(message.clone());
            wrapper.set_field(&field, value);
            Some(wrapper)
        }
        _ => None,
    }
}

/// A path of a field mask as the contract spells it, if it can be written in JSON again.
fn snake(path: &str) -> Option<String> {
    let mut spelled = String::new();
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            spelled.push('_');
        }
        spelled.push(letter.to_ascii_lowercase());
    }
    let is_known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c);
    // JSON has camel case: a `_` that no small letter follows is lost there (`a__b`, `a_1`).
    let words = spelled.split('_').skip(1);
    let reversible = words
        .into_iter()
        .all(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    (reversible && spelled.chars().all(is_known)).then_some(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect;

    fn kinds() -> impl Fn(&str) -> Kind {
        let contracts = crate::contracts::tests::compiled(
            "syntax = \"proto3\"; package t; import \"google/protobuf/wrappers.proto\"; \
             import \"google/protobuf/field_mask.proto\"; import \"google/protobuf/struct.proto\"; \
             message M { double d = 1; float f = 2; bytes b = 3; int64 i = 4; uint32 u = 5; \
             google.protobuf.FieldMask m = 6; google.protobuf.Int64Value w = 7; \
             google.protobuf.Value v = 8; google.protobuf.BytesValue wb = 9; M self = 10; \
             google.protobuf.ListValue l = 11; }",
        );
        let message = contracts.pool().get_message_by_name("t.M").unwrap();
        move |field| message.get_field_by_name(field).unwrap().kind()
    }

    #[test]
    fn texts_are_the_values_that_their_kind_has() {
        let kind = kinds();
        for (field, text, expected) in [
            ("d", "1.5e3", Some("1500.0")),
            ("d", "Infinity", Some("inf")),
            ("d", "inf", None),
            ("d", "1e999", None),
            ("f", "-Infinity", Some("-inf")),
            ("f", "1e39", None),
            ("b", "_-8", Some("\"\\377\\357\"")),
            ("b", "/+8=", Some("\"\\377\\357\"")),
            ("b", "_+8", None),
            ("i", "-9223372036854775808", Some("-9223372036854775808")),
            ("i", "1.0", None),
            ("i", " 1", None),
            ("u", "-1", None),
            ("u", "4294967296", None),
            (
                "m",
                "a,bC.dE,f_g",
                Some("{paths:[\"a\",\"b_c.d_e\",\"f_g\"]}"),
            ),
            ("m", "a b", None),
            ("m", "a__b", None),
            ("m", "a_", None),
            ("m", "d_[e", None),
            ("w", "5", Some("{value:5}")),
            ("w", "x", None),
            ("wb", "AQ", Some("{value:\"\\001\"}")),
            ("v", "\"5\"", Some("{string_value:\"5\"}")),
            ("v", "5", Some("{number_value:5.0}")),
            ("v", "x", None),
            ("l", "[true]", Some("{values:[{bool_value:true}]}")),
            ("l", "{}", None),
            ("self", "{}", None),
        ] {
            let parsed = parse(&kind(field), text, dialect::for_path("/"));
            let parsed = parsed.map(|value| value.to_string());
            assert_eq!(parsed.as_deref(), expected, "{field}={text}");
        }
    }
}
