//! What a run is given, against what its pipeline takes.

use std::collections::BTreeMap;

use ferroflow_types::FieldViolation;
use serde_json::{Map, Value};

use crate::macros::Macros;
use crate::plan::{ParameterInputDecl, ParameterType, Plan};
use crate::values;

/// The given parameters, typed; defaults are not filled in.
///
/// # Errors
/// Every parameter that is missing, unknown or of the wrong type.
pub fn check(
    plan: &Plan,
    given: &Map<String, Value>,
) -> Result<BTreeMap<String, Value>, Vec<FieldViolation>> {
    let root = plan.component(plan.root);
    let field = |name: &str| format!("runtime_config.parameters.{name}");
    let mut faults = Vec::new();
    let mut accepted = BTreeMap::new();
    // Clients know these messages: they are upstream's, all unknown names in one.
    let unknown: Vec<_> = given
        .keys()
        .filter(|name| !root.parameters.contains_key(*name))
        .cloned()
        .collect();
    if let Some(first) = unknown.first() {
        let names = unknown.join(", ");
        let problem = format!("parameter(s) provided are not required by pipeline: {names}");
        faults.push(FieldViolation::new(field(first), problem));
    }
    for (name, decl) in &root.parameters {
        match given.get(name).filter(|value| !value.is_null()) {
            Some(value) => match accept(name, decl, value) {
                Ok(value) => drop(accepted.insert(name.clone(), value)),
                Err(problem) => faults.push(FieldViolation::new(field(name), problem)),
            },
            None if decl.optional => {}
            None => faults.push(FieldViolation::new(
                field(name),
                format!(
                    "parameter {name} is not optional, yet has neither default value nor user \
                     provided value"
                ),
            )),
        }
    }
    if faults.is_empty() {
        Ok(accepted)
    } else {
        Err(faults)
    }
}

fn accept(name: &str, decl: &ParameterInputDecl, value: &Value) -> Result<Value, String> {
    let wanted = match decl.kind {
        ParameterType::Double => "double",
        ParameterType::Integer => "integer",
        ParameterType::String => "string",
        ParameterType::Boolean => "bool",
        ParameterType::List => "list",
        ParameterType::Struct => "struct",
        ParameterType::TaskFinalStatus | ParameterType::TaskConfig => {
            return Err(format!(
                "input parameter {name} is filled in by the platform"
            ));
        }
    };
    values::check_nesting(value).map_err(|problem| format!("input parameter {name}: {problem}"))?;
    let value = values::normalize(value.clone());
    // Inside a pipeline any value becomes text where text is declared. What a run is given is refused
    // instead, as upstream does.
    let is_text = value.is_string();
    if (decl.kind == ParameterType::String) != is_text {
        return Err(mismatch(name, wanted, &value));
    }
    let value =
        values::coerce(decl.kind, value.clone()).map_err(|_| mismatch(name, wanted, &value))?;
    if !decl.literals.is_empty() && !decl.literals.contains(&value) {
        let allowed: Vec<_> = decl.literals.iter().map(values::to_text).collect();
        let (allowed, value) = (allowed.join(", "), values::excerpt(&value));
        return Err(format!(
            "input parameter {name} must be one of {allowed}, but is {value}"
        ));
    }
    Ok(value)
}

fn mismatch(name: &str, wanted: &str, value: &Value) -> String {
    let value = values::excerpt(value);
    format!("input parameter {name} requires type {wanted}, but the parameter value is {value}")
}

/// Expands the macros of text parameters; whether one has become longer.
pub fn expand_macros(parameters: &mut BTreeMap<String, Value>, macros: &Macros<'_>) -> bool {
    let mut grown = false;
    for value in parameters.values_mut() {
        if let Value::String(text) = value {
            let expanded = macros.expand(text);
            grown |= expanded.len() > text.len();
            *text = expanded;
        }
    }
    grown
}
