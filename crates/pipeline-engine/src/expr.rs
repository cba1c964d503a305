//! The expressions of the IR: conditions and selectors, a subset of CEL.
//!
//! Grammar and meaning follow <https://github.com/google/cel-spec>: operators, field and index
//! access, list and map literals, the ternary, and the functions `int`, `double`, `string`,
//! `bool`, `size`, `parseJson`. Macros (`all`, `map`, …) are not part of it. A missing key, a clash
//! of types or an overflow is an error, never `false`.

mod eval;
mod lex;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::values;

/// Why an expression cannot be read or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ExprError(pub(super) String);

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expr(parse::Node);

/// Longer texts are refused.
const LENGTH_MAX: usize = 64 * 1024;

impl Expr {
    /// Reads an expression.
    pub(crate) fn parse(text: &str) -> Result<Self, ExprError> {
        if text.len() > LENGTH_MAX {
            return Err(ExprError(format!(
                "an expression may have {LENGTH_MAX} bytes at most"
            )));
        }
        parse::parse(text).map(Self)
    }

    /// Whether the condition holds, given `inputs.parameter_values`.
    pub(crate) fn condition(
        &self,
        parameters: &BTreeMap<String, Value>,
    ) -> Result<bool, ExprError> {
        let values: Map<String, Value> = parameters
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        // The compiler writes the field's name in the proto; its name in JSON is understood as well.
        let scope = json!({"inputs": {"parameter_values": values, "parameterValues": values}});
        match eval::eval(&self.0, &scope)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(ExprError(format!(
                "a condition must be true or false, not {other}"
            ))),
        }
    }

    /// The part of `value` that the selector picks. `string_value` is the value's text: JSON,
    /// unless it is text already.
    pub(crate) fn select(&self, value: &Value) -> Result<Value, ExprError> {
        let mut scope = Map::new();
        scope.insert(
            "string_value".to_owned(),
            Value::String(values::to_text(value)),
        );
        // The fields of `google.protobuf.Value`, over which upstream evaluates selectors. `text_value`
        // is not one of them: a text is in `string_value` already.
        let kind = match value {
            Value::Null => "null_value",
            Value::Bool(_) => "bool_value",
            Value::Number(_) => "number_value",
            Value::Array(_) => "list_value",
            Value::Object(_) => "struct_value",
            Value::String(_) => "text_value",
        };
        scope.insert(kind.to_owned(), value.clone());
        eval::eval(&self.0, &Value::Object(scope))
    }
}
