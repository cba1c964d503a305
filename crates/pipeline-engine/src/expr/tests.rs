use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Expr;

fn condition(text: &str, parameters: &Value) -> Result<bool, String> {
    let parameters: BTreeMap<String, Value> =
        serde_json::from_value(parameters.clone()).expect("an object");
    Expr::parse(text)
        .and_then(|expr| expr.condition(&parameters))
        .map_err(|error| error.to_string())
}

#[test]
fn every_form_that_the_compiler_writes() {
    let parameters = json!({"n": 3, "x": 0.5, "s": "heads", "flag": true, "text": "it's"});
    let p = |name: &str| format!("inputs.parameter_values['{name}']");
    for (text, expected) in [
        (format!("{} == 'heads'", p("s")), true),
        (format!("int({}) > 2", p("n")), true),
        (format!("double({}) < 0.25", p("x")), false),
        (format!("{} == true", p("flag")), true),
        (format!("!({} == 'heads')", p("s")), false),
        (
            format!("!({} == 'tails') && int({}) >= 3", p("s"), p("n")),
            true,
        ),
        (format!("{} != 'it\\'s'", p("text")), false),
        (format!("{} == 3.0", p("n")), true),
        (format!("{} in ['heads', 'tails']", p("s")), true),
        ("size('abc') == 3 ? true : false".to_owned(), true),
        ("1 + 2 * 3 == 7 && -2 < 0".to_owned(), true),
        ("parseJson('{\"a\": [1, 2]}').a[1] == 2".to_owned(), true),
    ] {
        assert_eq!(condition(&text, &parameters), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_missing_or_does_not_fit_is_an_error_and_not_false() {
    let parameters = json!({"n": 3, "s": "x"});
    for text in [
        "inputs.parameter_values['none'] == 1",
        "inputs.parameter_values['s'] == 1",
        "inputs.parameter_values['n']",
        "int('x') == 1",
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "'a' < 1",
        "unknown(1) == 1",
    ] {
        assert!(condition(text, &parameters).is_err(), "{text}");
    }
}

#[test]
fn what_cannot_be_read_says_where() {
    for (text, message) in [
        ("1 ==", "expected a value at 4"),
        ("(1", "expected ) at 2"),
        ("'a", "begins at 0"),
        ("1 # 2", "'#' at 2"),
        ("1 2", "unexpected text at 2"),
    ] {
        let error = Expr::parse(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn selectors_pick_parts_of_values_and_of_texts() {
    let select = |text: &str, value: Value| Expr::parse(text).unwrap().select(&value);
    let item = json!({"A_a": 1, "B_b": [2]});

    let a = r#"parseJson(string_value)["A_a"]"#;
    assert_eq!(select(a, item.clone()), Ok(json!(1)));
    assert_eq!(select(a, json!(item.to_string())), Ok(json!(1)));
    assert_eq!(select("struct_value.B_b[0]", item.clone()), Ok(json!(2)));
    assert!(select(r#"parseJson(string_value)["none"]"#, item).is_err());
}

proptest! {
    #[test]
    fn reading_and_evaluating_never_panics(text in "[ -~]{0,60}") {
        if let Ok(expr) = Expr::parse(&text) {
            let _either = expr.condition(&BTreeMap::new()).is_ok();
            let _either = expr.select(&json!({"a": [1]})).is_ok();
        }
    }

    #[test]
    fn numbers_compare_as_they_do_in_rust(a in -1000_i64..1000, b in -1000_i64..1000) {
        let found = condition(&format!("{a} < {b}"), &json!({})).unwrap();
        prop_assert_eq!(found, a < b);
    }

    #[test]
    fn depth_is_limited(depth in 90_usize..5000) {
        let text = format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        prop_assert!(Expr::parse(&text).is_ok() == (depth < 100));
    }
}
