//! JSON values that keep their meaning: whole numbers, and how deep values may nest.

use serde_json::{Map, Number, Value};

/// 2^53: the whole numbers up to here are exact as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Objects and lists inside one another that a value may have. Every JSON reader, ours included,
/// stops somewhere (serde_json at 128), and a value is wrapped several times before it is stored or
/// shown.
pub const NESTING_MAX: usize = 64;

/// A double that is a whole number, as one. Negative zero is none: an integer has no sign of zero.
pub fn exact_integer(number: f64) -> Option<i64> {
    let exact = number.fract() == 0.0 && number.abs() <= EXACT;
    let negative_zero = number == 0.0 && number.is_sign_negative();
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    (exact && !negative_zero).then_some(number as i64)
}

/// A number as JSON: a whole double becomes an integer, because clients that expect an `int` fail
/// on `3.0`. `None` for NaN and infinities, which JSON does not have.
pub fn number(double: f64) -> Option<Number> {
    match exact_integer(double) {
        Some(integer) => Some(integer.into()),
        None => Number::from_f64(double),
    }
}

/// Whole doubles become integers, also inside lists and objects: JSON and YAML print `3.0` where
/// `3` is meant, and a component that expects an `int` fails on a `float`.
pub fn normalize(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(normalize_number(number)),
        Value::Array(items) => Value::Array(items.into_iter().map(normalize).collect()),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name, normalize(value)))
                .collect::<Map<_, _>>(),
        ),
        other => other,
    }
}

fn normalize_number(number: Number) -> Number {
    match number
        .as_f64()
        .filter(|_| number.is_f64())
        .and_then(exact_integer)
    {
        Some(integer) => integer.into(),
        None => number,
    }
}

/// How many objects and lists of `value` are inside one another; 0 for a text or a number.
pub fn nesting(value: &Value) -> usize {
    // Without recursion: a value that is too deep must not overflow the stack here.
    let mut open = vec![(value, 1)];
    let mut deepest = 0;
    while let Some((value, depth)) = open.pop() {
        match value {
            Value::Array(items) => {
                deepest = deepest.max(depth);
                open.extend(items.iter().map(|item| (item, depth + 1)));
            }
            Value::Object(fields) => {
                deepest = deepest.max(depth);
                open.extend(fields.values().map(|value| (value, depth + 1)));
            }
            _ => {}
        }
    }
    deepest
}

/// Refuses a value that nests deeper than [`NESTING_MAX`].
///
/// # Errors
/// A sentence that says how deep it is.
pub fn check_nesting(value: &Value) -> Result<(), String> {
    match nesting(value) {
        ..=NESTING_MAX => Ok(()),
        found => Err(format!(
            "it nests {found} objects and lists, more than {NESTING_MAX}: flatten it, or pass it on \
             as a text or an artifact"
        )),
    }
}

/// Characters of a text that [`excerpt`] keeps.
const EXCERPT: usize = 200;

/// The beginning of a text, for messages.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_doubles_become_integers_as_far_as_they_are_exact() {
        for (double, text) in [
            (3.0, "3"),
            (-2.0, "-2"),
            (0.5, "0.5"),
            (0.0, "0"),
            (-0.0, "-0.0"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (-9_007_199_254_740_992.0, "-9007199254740992"),
            (9_007_199_254_740_994.0, "9007199254740994.0"),
        ] {
            assert_eq!(number(double).unwrap().to_string(), text);
        }
        assert_eq!(number(f64::NAN), None);
    }

    #[test]
    fn whole_doubles_become_integers_at_every_depth() {
        let value = normalize(json!({"a": [1.0, 1.5, {"b": -2.0}]}));

        assert_eq!(value.to_string(), r#"{"a":[1,1.5,{"b":-2}]}"#);
    }

    #[test]
    fn nesting_counts_objects_and_lists() {
        assert_eq!(nesting(&json!("x")), 0);
        assert_eq!(nesting(&json!({"a": [1, {"b": []}], "c": {}})), 4);
        let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(check_nesting(&deep(NESTING_MAX)).is_ok());
        let problem = check_nesting(&deep(NESTING_MAX + 1)).unwrap_err();
        assert!(problem.starts_with("it nests 65"), "{problem}");
    }
}
