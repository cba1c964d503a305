//! Output parameters: of the type that was declared, or the command has failed.

use ferroflow_types::json::{check_nesting, exact_integer, excerpt};
use serde_json::{Map, Value};

use super::ParameterKind;

/// What stands before a number that JSON does not have. No text that a command means begins so.
const NUMBER_MARK: &str = "\0number:";

/// Makes JSON of what Python's `json` writes: `NaN`, `Infinity` and `-Infinity` outside texts become
/// texts that [`coerce`] and [`without_number_marks`] know again.
pub(crate) fn mark_bare_numbers(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let (mut rest, mut in_text) = (text, false);
    while let Some(first) = rest.chars().next() {
        // Together: an escaped quote does not end the text.
        if in_text && first == '\\' {
            let end = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
            result.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let word = ["NaN", "-Infinity", "Infinity"]
            .into_iter()
            .find(|word| !in_text && rest.starts_with(word));
        if let Some(word) = word {
            result.push_str("\"\\u0000number:");
            result.push_str(word);
            result.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        in_text ^= first == '"';
        result.push(first);
        rest = &rest[first.len_utf8()..];
    }
    result
}

/// Metadata with numbers that JSON does not have as their names: ROC curves begin with an infinite
/// threshold.
pub(crate) fn without_number_marks(metadata: Map<String, Value>) -> Map<String, Value> {
    fn visit(value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(match text.strip_prefix(NUMBER_MARK) {
                Some(name) => name.to_owned(),
                None => text,
            }),
            Value::Array(items) => items.into_iter().map(visit).collect(),
            Value::Object(fields) => Value::Object(without_number_marks(fields)),
            other => other,
        }
    }
    metadata
        .into_iter()
        .map(|(name, value)| (name, visit(value)))
        .collect()
}

fn find_marked_number(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => text.strip_prefix(NUMBER_MARK),
        Value::Array(items) => items.iter().find_map(find_marked_number),
        Value::Object(fields) => fields.values().find_map(find_marked_number),
        _ => None,
    }
}

/// The value as one of the declared type; null for none.
///
/// # Errors
/// What it is instead.
pub(crate) fn coerce(kind: ParameterKind, value: Value) -> Result<Value, String> {
    if let Some(name) = find_marked_number(&value) {
        return Err(match &value {
            Value::String(_) => format!("it is {name}, which is no number of JSON"),
            _ => format!("it holds {name}, which is no number of JSON"),
        });
    }
    check_nesting(&value)?;
    let value = match value {
        // Python writes a whole float with a fraction.
        Value::Number(number) if kind == ParameterKind::Integer && number.is_f64() => {
            // The sum makes 0.0 of -0.0, which is no whole number otherwise.
            match number
                .as_f64()
                .map(|number| number + 0.0)
                .and_then(exact_integer)
            {
                Some(whole) => whole.into(),
                None => Value::Number(number),
            }
        }
        value => value,
    };
    let fits = match kind {
        _ if value.is_null() => true,
        ParameterKind::Double => value.is_number(),
        ParameterKind::Integer => value.is_i64() || value.is_u64(),
        ParameterKind::String => value.is_string(),
        ParameterKind::Boolean => value.is_boolean(),
        ParameterKind::List => value.is_array(),
        ParameterKind::Struct => value.is_object(),
    };
    if fits {
        return Ok(value);
    }
    Err(format!(
        "it is declared as {}, but is {}",
        type_description(kind),
        excerpt(&value.to_string())
    ))
}

/// The value that a parameter file stands for.
///
/// # Errors
/// What its text is not.
pub(crate) fn parse_value(kind: ParameterKind, text: &str) -> Result<Value, String> {
    let trimmed = text.trim();
    let not = |what: &str| format!("{} is not {what}", excerpt(&format!("{trimmed:?}")));
    let value = match kind {
        // As upstream: blanks around a text belong to it.
        ParameterKind::String => Value::String(text.to_owned()),
        ParameterKind::Integer => trimmed
            .parse::<i64>()
            .map(Value::from)
            .map_err(|_| not("a whole number"))?,
        ParameterKind::Double => {
            let number: f64 = trimmed.parse().map_err(|_| not("a number"))?;
            serde_json::Number::from_f64(number)
                .map(Value::Number)
                .ok_or_else(|| not("a finite number"))?
        }
        // The words of Go's `ParseBool`, by which upstream reads the file.
        ParameterKind::Boolean => match trimmed {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Value::Bool(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Value::Bool(false),
            _ => return Err(not("true or false")),
        },
        ParameterKind::List | ParameterKind::Struct => serde_json::from_str(trimmed)
            .or_else(|_| serde_json::from_str(&mark_bare_numbers(trimmed)))
            .map_err(|error| format!("{} ({error})", not("JSON")))?,
    };
    coerce(kind, value)
}

fn type_description(kind: ParameterKind) -> &'static str {
    match kind {
        ParameterKind::Double => "a number",
        ParameterKind::Integer => "a whole number within 64 bits",
        ParameterKind::String => "a text",
        ParameterKind::Boolean => "true or false",
        ParameterKind::List => "a list",
        ParameterKind::Struct => "an object",
    }
}

#[cfg(test)]
mod tests {
    use ParameterKind::{Boolean, Double, Integer, List, String as Text, Struct};
    use serde_json::json;

    use super::*;

    #[test]
    fn parameter_files_are_typed() {
        for (kind, text, expected) in [
            (Text, " a\n", "\" a\\n\""),
            (Integer, " 7\n", "7"),
            (Double, "1.5", "1.5"),
            (Double, "5e-324", "5e-324"),
            (Boolean, "True\n", "true"),
            (List, "[1]", "[1]"),
            (Struct, "{\"a\": 1}", "{\"a\":1}"),
        ] {
            assert_eq!(parse_value(kind, text).unwrap().to_string(), expected);
        }
        for (kind, text) in [
            (Integer, "1.5"),
            (Double, "inf"),
            (Boolean, "yes"),
            (List, "{}"),
            (List, "[NaN]"),
            (Struct, "[]"),
        ] {
            assert!(parse_value(kind, text).is_err(), "{kind:?} {text}");
        }
    }

    #[test]
    fn values_of_another_type_are_reported_with_what_they_are() {
        for (kind, value, expected) in [
            (Integer, json!(1.5), "declared as a whole number"),
            (Integer, json!(1e300), "declared as a whole number"),
            (Integer, json!("1"), "but is \"1\""),
            (Text, json!(1), "declared as a text, but is 1"),
            (Boolean, json!(0), "declared as true or false"),
            (List, json!({}), "declared as a list"),
            (Struct, json!([]), "declared as an object"),
        ] {
            let problem = coerce(kind, value).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
        for (kind, value, expected) in [
            (Integer, json!(3.0), json!(3)),
            (Integer, json!(-0.0), json!(0)),
            (Double, json!(3), json!(3)),
            (Double, json!(-0.0), json!(-0.0)),
            (Text, json!(null), json!(null)),
        ] {
            assert_eq!(coerce(kind, value), Ok(expected));
        }
        let deep = (0..65).fold(json!(1), |inner, _| json!([inner]));
        assert!(coerce(List, deep).unwrap_err().contains("nests 65"));
    }

    #[test]
    fn bare_infinities_are_found_in_parameters_and_named_in_metadata() {
        let text = r#"{"a": [Infinity, -Infinity, NaN, 1], "b": "NaN \" Infinity"}"#;
        let read: Value = serde_json::from_str(&mark_bare_numbers(text)).unwrap();
        let Value::Object(fields) = read.clone() else {
            panic!("{read}")
        };

        assert_eq!(
            Value::Object(without_number_marks(fields)),
            json!({"a": ["Infinity", "-Infinity", "NaN", 1], "b": "NaN \" Infinity"})
        );
        let problem = coerce(Struct, read).unwrap_err();
        assert!(problem.contains("it holds Infinity"), "{problem}");
        assert_eq!(coerce(Text, json!("NaN")), Ok(json!("NaN")));
        let number: Value = serde_json::from_str(&mark_bare_numbers("NaN")).unwrap();
        let problem = coerce(Double, number).unwrap_err();
        assert!(problem.contains("it is NaN"), "{problem}");
    }
}
