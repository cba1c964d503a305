//! Parameter values: their text, their types, their sizes.

use std::collections::BTreeMap;

use ferroflow_types::limit::bytes_of;
use ferroflow_types::{ValueLimit, json};
use serde_json::Value;

use crate::plan::ParameterType;

pub use ferroflow_types::json::{check_nesting, exact_integer, normalize};

/// The text that stands for a value in a command: text as it is, numbers in their shortest decimal
/// form, lists and objects as compact JSON, null as nothing.
pub(crate) fn to_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => number_text(number.as_f64().unwrap_or(0.0)),
        other => other.to_string(),
    }
}

fn number_text(number: f64) -> String {
    match exact_integer(number) {
        Some(whole) => whole.to_string(),
        // Rust prints the shortest decimal that reads back the same bits, and never an exponent.
        None => number.to_string(),
    }
}

/// The value as a parameter of `kind`.
///
/// # Errors
/// A sentence that says what was expected and what was found.
pub(crate) fn coerce(kind: ParameterType, value: Value) -> Result<Value, String> {
    let value = match normalize(value) {
        // An integer has no negative zero.
        Value::Number(number) if kind == ParameterType::Integer && number.as_f64() == Some(0.0) => {
            Value::from(0)
        }
        value => value,
    };
    let fits = match kind {
        ParameterType::String => {
            return Ok(match value {
                Value::String(_) => value,
                // KFP converts any value to its JSON text where text is declared.
                other => Value::String(other.to_string()),
            });
        }
        ParameterType::Integer => value.is_i64() || value.is_u64(),
        ParameterType::Double => value.is_number(),
        ParameterType::Boolean => value.is_boolean(),
        ParameterType::List => value.is_array(),
        ParameterType::Struct | ParameterType::TaskFinalStatus | ParameterType::TaskConfig => {
            value.is_object()
        }
    };
    if fits {
        Ok(value)
    } else {
        Err(format!(
            "expected {}, found {}",
            kind.noun(),
            excerpt(&value)
        ))
    }
}

/// The parameters that are larger than a value may be, each with a sentence that says so.
pub fn too_large(
    parameters: &BTreeMap<String, Value>,
    limit: ValueLimit,
) -> impl Iterator<Item = (&String, String)> {
    parameters
        .iter()
        .filter_map(move |(name, value)| Some((name, limit.check(bytes_of(value)).err()?)))
}

/// The beginning of a value, for messages.
pub(crate) fn excerpt(value: &Value) -> String {
    json::excerpt(&value.to_string())
}

impl ParameterType {
    /// What a value of this type is called in messages.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Double => "a number",
            Self::Integer => "an integer",
            Self::String => "a string",
            Self::Boolean => "a boolean",
            Self::List => "a list",
            Self::Struct => "a struct",
            Self::TaskFinalStatus => "a task's final status",
            Self::TaskConfig => "a task's configuration",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_values() {
        for (value, text) in [
            (json!("a b"), "a b"),
            (json!(3.0), "3"),
            (json!(1e21), "1000000000000000000000"),
            (json!(0.1), "0.1"),
            (json!(-0.0), "-0"),
            (json!(9_007_199_254_740_992.0), "9007199254740992"),
            (json!(true), "true"),
            (json!([1, "x"]), "[1,\"x\"]"),
            (json!(null), ""),
        ] {
            assert_eq!(to_text(&value), text);
        }
    }

    #[test]
    fn values_fit_their_type_or_are_refused() {
        assert_eq!(coerce(ParameterType::Integer, json!(3.0)), Ok(json!(3)));
        assert_eq!(coerce(ParameterType::Integer, json!(-0.0)), Ok(json!(0)));
        assert_eq!(coerce(ParameterType::String, json!([1])), Ok(json!("[1]")));
        assert_eq!(
            coerce(ParameterType::Integer, json!(1.5)),
            Err("expected an integer, found 1.5".to_owned())
        );
        assert!(coerce(ParameterType::List, json!({})).is_err());
    }

    proptest! {
        #[test]
        fn the_text_of_a_number_reads_back_as_the_number(number in prop::num::f64::NORMAL) {
            let text = to_text(&json!(number));
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
            prop_assert!(!text.contains('e'));
        }
    }
}
