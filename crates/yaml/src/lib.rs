//! YAML as PyYAML reads it: compiled pipelines are written by it.
//!
//! PyYAML follows YAML 1.1 with rules of its own for plain texts: `y`, `1e3` and `0o7` are texts, and
//! it writes them without quotes; `yes`, `010` and `1:30` are none. A reader of YAML 1.2 takes these
//! for something else. Only the rules are here, the syntax is [`granit_parser`]'s.
//!
//! JSON is read as JSON, where `1e3` is a number. Keys are texts as they are written. Dates, which
//! JSON does not have, are texts; NaN, infinities and other tags than those of JSON are refused. A
//! repeated key is an error.

mod compose;
mod json;
mod resolve;

use serde_json::Value;

/// Objects and lists of a document inside one another.
pub const DEPTH_MAX: usize = 100;

/// Why a text cannot be read, with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct YamlError(String);

/// The documents of a text.
///
/// # Errors
/// The first thing that is wrong, with its line and column.
pub fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let is_json = text.trim_start().starts_with(['{', '[']);
    match is_json.then(|| json::read(text)) {
        // Flow style looks like JSON and may still be YAML.
        Some(Err(error)) if error.is_syntax() && !json::is_content_error(&error) => {
            compose::compose(text)
        }
        Some(Err(error)) => Err(YamlError(error.to_string())),
        Some(Ok(value)) => Ok(vec![value]),
        None => compose::compose(text),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Result<Value, String> {
        let found = documents(text).map_err(|error| error.to_string())?;
        assert_eq!(found.len(), 1, "{text}");
        Ok(found[0].clone())
    }

    #[test]
    fn plain_texts_mean_what_they_mean_to_pyyaml() {
        for (text, value) in [
            ("n", json!("n")),
            ("y", json!("y")),
            ("1e3", json!("1e3")),
            ("1e-5", json!("1e-5")),
            ("1.5e3", json!("1.5e3")),
            ("0o7", json!("0o7")),
            ("09", json!("09")),
            ("2026-01-31", json!("2026-01-31")),
            ("=", json!("=")),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("~", json!(null)),
            ("1.5e+3", json!(1500.0)),
            ("-.5", json!("-.5")),
            (".5", json!(0.5)),
            ("010", json!(8)),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("1_000", json!(1000)),
            ("1:30", json!(90)),
            ("-1:30.5", json!(-90.5)),
            ("9007199254740993", json!(9_007_199_254_740_993_i64)),
            ("'1'", json!("1")),
            ("\"no\"", json!("no")),
            ("!!str 1", json!("1")),
            ("!!float 1", json!(1.0)),
            ("! \"1\"", json!(1)),
        ] {
            assert_eq!(
                one(&format!("a: {text}\n")),
                Ok(json!({"a": value})),
                "{text}"
            );
        }
    }

    #[test]
    fn json_is_read_as_json() {
        assert_eq!(
            one(r#"{"a": 1e3, "b": 1E-5}"#),
            Ok(json!({"a": 1e3, "b": 1e-5}))
        );
        assert_eq!(one("{a: 1e3, b: [y]}"), Ok(json!({"a": "1e3", "b": ["y"]})));
        let twice = one(r#"{"a": 1, "a": 2}"#).unwrap_err();
        assert!(twice.contains("\"a\" is given twice"), "{twice}");
    }

    #[test]
    fn anchors_and_merges_are_filled_in() {
        let text = "base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\nlist: [*b]\n";
        let base = json!({"x": 1, "y": 2});
        assert_eq!(
            one(text),
            Ok(json!({"base": base, "own": {"x": 1, "y": 3}, "list": [base]}))
        );
    }

    #[test]
    fn several_documents_are_several() {
        let found = documents("a: 1\n---\n- b\n...\n---\n").unwrap();
        assert_eq!(found, [json!({"a": 1}), json!(["b"]), json!(null)]);
    }

    #[test]
    fn what_json_does_not_have_is_told_with_its_place() {
        for (text, problem) in [
            ("a: .nan\n", "line 1 column 4: .nan is no number of JSON"),
            ("a: 1\nb: -.inf\n", "line 2 column 4: -.inf"),
            ("a: 1.0e+999\n", "1.0e+999"),
            ("a: !!python/tuple [1]\n", "tag"),
            ("a: !!binary aGk=\n", "tag"),
            ("a: !!int x\n", "line 1 column 10"),
            (
                "a: 1\na: 2\n",
                "line 2 column 1: the key \"a\" is given twice",
            ),
            ("? [a]\n: 1\n", "a key must be a text"),
            ("a: *b\n", "line 1 column 4"),
            ("a: &a [*a]\n", "itself"),
            ("a: [\n", "line"),
        ] {
            let error = one(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn depth_and_copies_are_limited() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(one(&nested(DEPTH_MAX)).is_ok());
        assert!(
            one(&nested(DEPTH_MAX + 1))
                .unwrap_err()
                .contains("nested deeper")
        );
        assert!(
            one(&format!("a: {}", nested(DEPTH_MAX)))
                .unwrap_err()
                .contains("nested deeper")
        );
        let lines: Vec<_> = (0..150)
            .map(|at| format!("{}a:\n", " ".repeat(at)))
            .collect();
        let block = lines.concat();
        assert!(one(&block).unwrap_err().contains("nested deeper"));

        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(bomb, "a{level}: &a{level} [{inner}]").unwrap();
        }
        assert!(one(&bomb).unwrap_err().contains("aliases"));
    }

    #[test]
    fn copies_are_limited_by_their_bytes() {
        let long = "x".repeat(400_000);
        let aliases = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 100].join(", "));
        let keys = format!("a: &a {long}\nb: [{}]\n", vec!["{*a : 1}"; 100].join(", "));
        let key_anchors: Vec<_> = (0..100)
            .map(|at| format!("? &k{at} {at}{long}\n: 1\n"))
            .collect();
        let key_anchors = key_anchors.concat();
        let anchors: Vec<_> = (0..90).map(|at| format!("&a{at} [")).collect();
        let anchors = anchors.concat();
        let anchors = format!("{anchors}{long}{}", "]".repeat(90));
        for bomb in [aliases, keys, key_anchors, anchors] {
            let error = one(&bomb).map(|_| "it was read").unwrap_err();
            assert!(error.contains("anchors and aliases"), "{error}");
        }
    }

    #[test]
    fn what_a_pipeline_repeats_is_read() {
        // PyYAML writes an anchor for an object that a program uses in several places.
        let long = "x".repeat(2_000);
        let aliases = vec!["*id001"; 1_000].join(", ");
        let text = format!("first: &id001 {{command: [sh, -c, {long}]}}\nothers: [{aliases}]\n");
        let found = one(&text).unwrap();
        assert_eq!(found["others"][999], found["first"]);
        assert_eq!(found["first"]["command"][2], json!(long));
    }
}
