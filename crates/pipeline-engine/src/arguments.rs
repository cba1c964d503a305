//! Structured arguments: `{"IfPresent": …}` and `{"Concat": …}` in commands.
//!
//! Reference: KFP `dsl.IfPresentPlaceholder`, `dsl.ConcatPlaceholder`. An input is present when it
//! was given a value; a component's default alone does not count.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::placeholder::{ExecutorContext, PlaceholderError, resolve_text};

/// Why an argument cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    /// A placeholder in it.
    #[error(transparent)]
    Placeholder(#[from] PlaceholderError),
    /// A structure that is not one of the known.
    #[error("argument {0}: not an IfPresent or Concat structure that is understood")]
    Structure(String),
}

/// The words of a command; a structured argument may become none or several.
pub(crate) fn resolve_args(
    args: &[String],
    present: &BTreeSet<&str>,
    context: &ExecutorContext<'_>,
) -> Result<Vec<String>, ArgumentError> {
    let mut resolved = Vec::with_capacity(args.len());
    for arg in args {
        match parse_structure(arg) {
            Some(structure) => resolved.extend(expand(&structure, present, context)?),
            None => resolved.push(resolve_text(arg, context)?),
        }
    }
    Ok(resolved)
}

/// The structure that a word is the JSON text of.
fn parse_structure(arg: &str) -> Option<Value> {
    let trimmed = arg.trim_start();
    // The SDK's compiler writes structures like this. Other text is a plain word, JSON or not.
    if !trimmed.starts_with("{\"IfPresent\"") && !trimmed.starts_with("{\"Concat\"") {
        return None;
    }
    serde_json::from_str(trimmed).ok()
}

fn expand(
    item: &Value,
    present: &BTreeSet<&str>,
    context: &ExecutorContext<'_>,
) -> Result<Vec<String>, ArgumentError> {
    let unknown = || ArgumentError::Structure(item.to_string());
    match item {
        Value::String(text) => Ok(vec![resolve_text(text, context)?]),
        Value::Array(items) => {
            let mut args = Vec::new();
            for item in items {
                args.extend(expand(item, present, context)?);
            }
            Ok(args)
        }
        Value::Object(fields) => {
            if let Some(Value::Array(items)) = fields.get("Concat") {
                let mut text = String::new();
                for item in items {
                    text.push_str(&expand(item, present, context)?.concat());
                }
                return Ok(vec![text]);
            }
            let choice = fields.get("IfPresent").ok_or_else(unknown)?;
            let name = choice
                .get("InputName")
                .and_then(Value::as_str)
                .ok_or_else(unknown)?;
            let branch = if present.contains(name) {
                "Then"
            } else {
                "Else"
            };
            match choice.get(branch) {
                Some(branch) => expand(branch, present, context),
                // Without `Else` the argument is dropped; an empty word would be another argument.
                None => Ok(Vec::new()),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use ferroflow_types::ValueLimit;

    use super::*;
    use crate::budget::Budget;
    use crate::placeholder::TaskFacts;

    fn resolve(args: &[&str], present: &[&str]) -> Vec<String> {
        let input = json!({"inputs": {"parameterValues": {"a": "x y", "n": 2}}});
        let facts = TaskFacts {
            run_id: String::new(),
            run_name: String::new(),
            display_name: String::new(),
            task_name: String::new(),
            task_id: String::new(),
            pipeline_root: String::new(),
            create_time: String::new(),
            schedule_time: String::new(),
            workspace_path: None,
        };
        let context = ExecutorContext {
            executor_input: &input,
            facts: &facts,
            budget: &Budget::new(ValueLimit::default()),
        };
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        resolve_args(&args, &present.iter().copied().collect(), &context).unwrap()
    }

    #[test]
    fn a_present_input_takes_the_then_branch_and_an_absent_one_the_else_branch() {
        let arg = r#"{"IfPresent": {"InputName": "a", "Then": ["--a", "{{$.inputs.parameters['a']}}"], "Else": "--none"}}"#;

        assert_eq!(resolve(&[arg], &["a"]), ["--a", "x y"]);
        assert_eq!(resolve(&[arg], &[]), ["--none"]);
        let without_else = r#"{"IfPresent": {"InputName": "a", "Then": "--a"}}"#;
        assert_eq!(resolve(&["b", without_else], &[]), ["b"]);
    }

    #[test]
    fn concat_joins_its_items_and_may_hold_conditions() {
        let arg = r#"{"Concat": ["{{$.inputs.parameters['a']}}", "+", {"IfPresent": {"InputName": "n", "Then": "{{$.inputs.parameters['n']}}"}}]}"#;

        assert_eq!(resolve(&[arg], &["a", "n"]), ["x y+2"]);
        assert_eq!(resolve(&[arg], &["a"]), ["x y+"]);
    }

    #[test]
    fn other_json_is_a_plain_word() {
        assert_eq!(resolve(&[r#"{"a": 1}"#, "{"], &[]), [r#"{"a": 1}"#, "{"]);
    }
}
