//! Checks a document against its protobuf message, all errors at once, and makes it canonical.
//!
//! The descriptors are the only complete list of fields; a second one by hand would go out of date.
//! Canonical JSON has lowerCamelCase names, enums by name, and whole doubles as integers where values
//! are free-form.

use ferroflow_types::{FieldViolation, json};
use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// Documents nested deeper than this are refused.
const DEPTH_MAX: usize = 100;

/// What to do with a field that the message does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// Report it.
    Refuse,
    /// Leave it out.
    Discard,
}

/// The canonical form of `value` as the message `name`.
///
/// # Errors
/// Every unknown field and every value of the wrong type, with its path below `place`.
pub fn canonical(
    name: &str,
    value: &Value,
    place: &str,
    unknown: UnknownFields,
) -> Result<Value, Vec<FieldViolation>> {
    let Some(message) = crate::pool().get_message_by_name(name) else {
        return Err(vec![FieldViolation::new(
            place,
            format!("there is no message {name}"),
        )]);
    };
    let mut check = Canonicalizer {
        unknown,
        faults: Vec::new(),
    };
    let result = check.message(&message, value, place, 0);
    if check.faults.is_empty() {
        Ok(result)
    } else {
        Err(check.faults)
    }
}

struct Canonicalizer {
    unknown: UnknownFields,
    faults: Vec<FieldViolation>,
}

impl Canonicalizer {
    fn report(&mut self, place: &str, problem: impl Into<String>) -> Value {
        self.faults.push(FieldViolation::new(place, problem));
        Value::Null
    }

    fn message(
        &mut self,
        message: &MessageDescriptor,
        value: &Value,
        place: &str,
        depth: usize,
    ) -> Value {
        if depth > DEPTH_MAX {
            return self.report(place, format!("nested deeper than {DEPTH_MAX} levels"));
        }
        match message.full_name() {
            "google.protobuf.Value" => return self.free_form(value, place),
            "google.protobuf.Struct" if value.is_object() => return self.free_form(value, place),
            "google.protobuf.ListValue" if value.is_array() => return self.free_form(value, place),
            "google.protobuf.Duration" if value.is_string() => return value.clone(),
            _ => {}
        }
        let Value::Object(fields) = value else {
            return self.report(
                place,
                format!("expected an object, found {}", kind_of(value)),
            );
        };
        let mut result = Map::new();
        let mut chosen: Map<String, Value> = Map::new();
        for (key, value) in fields {
            let inner = join(place, key);
            let known = message.get_field_by_json_name(key);
            let Some(field) = known.or_else(|| message.get_field_by_name(key)) else {
                if self.unknown == UnknownFields::Refuse {
                    let name = message.name();
                    self.report(&inner, format!("unknown field {key:?} in {name}"));
                }
                continue;
            };
            // In protobuf's JSON, null is a field that is not set, but for a `Value`, which may be
            // null.
            if value.is_null() && !is_value(&field) {
                continue;
            }
            // An `optional` field is in a oneof of its own (synthetic), where there is no other.
            if let Some(oneof) = field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic())
                && let Some(other) = chosen.insert(oneof.name().to_owned(), key.clone().into())
            {
                self.report(
                    &inner,
                    format!("{other} is given as well, and only one may be"),
                );
            }
            let value = self.field(&field, value, &inner, depth + 1);
            if result.insert(field.json_name().to_owned(), value).is_some() {
                self.report(&inner, "given twice");
            }
        }
        Value::Object(result)
    }

    /// A value of any form.
    fn free_form(&mut self, value: &Value, place: &str) -> Value {
        match json::check_nesting(value) {
            Ok(()) => json::normalize(value.clone()),
            Err(problem) => self.report(place, problem),
        }
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        value: &Value,
        place: &str,
        depth: usize,
    ) -> Value {
        if field.is_map() {
            let Value::Object(entries) = value else {
                return self.report(
                    place,
                    format!("expected an object, found {}", kind_of(value)),
                );
            };
            let Kind::Message(entry) = field.kind() else {
                return Value::Null;
            };
            let kind = entry.map_entry_value_field().kind();
            let checked = entries.iter().map(|(key, value)| {
                (
                    key.clone(),
                    self.single(&kind, value, &join(place, key), depth),
                )
            });
            return Value::Object(checked.collect());
        }
        if field.cardinality() == Cardinality::Repeated {
            let Value::Array(items) = value else {
                return self.report(place, format!("expected a list, found {}", kind_of(value)));
            };
            let kind = field.kind();
            let checked = items.iter().enumerate();
            let checked = checked
                .map(|(at, item)| self.single(&kind, item, &format!("{place}[{at}]"), depth));
            return Value::Array(checked.collect());
        }
        self.single(&field.kind(), value, place, depth)
    }

    fn single(&mut self, kind: &Kind, value: &Value, place: &str, depth: usize) -> Value {
        let fits = match kind {
            Kind::Message(message) => return self.message(message, value, place, depth),
            Kind::Enum(of) => {
                let found = match value {
                    Value::String(name) => of.get_value_by_name(name),
                    other => {
                        let number = other.as_f64().and_then(json::exact_integer);
                        number
                            .and_then(|number| i32::try_from(number).ok())
                            .and_then(|number| of.get_value(number))
                    }
                };
                return match found {
                    Some(found) => Value::String(found.name().to_owned()),
                    None => self.report(place, format!("{value} is not a value of {}", of.name())),
                };
            }
            Kind::String | Kind::Bytes => value.is_string(),
            Kind::Bool => value.is_boolean(),
            Kind::Double | Kind::Float => return self.number(value, place, false),
            _ => return self.number(value, place, true),
        };
        if fits {
            return value.clone();
        }
        let wanted = if matches!(kind, Kind::Bool) {
            "true or false"
        } else {
            "text"
        };
        self.report(
            place,
            format!("expected {wanted}, found {}", kind_of(value)),
        )
    }

    /// Numbers may be written as texts, as protobuf prints 64-bit ones.
    fn number(&mut self, value: &Value, place: &str, whole: bool) -> Value {
        let number = match value {
            Value::String(text) => text
                .parse::<f64>()
                .ok()
                .and_then(|number| serde_json::Number::from_f64(number).map(Value::Number)),
            Value::Number(_) => Some(value.clone()),
            _ => None,
        };
        match number.map(json::normalize) {
            Some(number) if !whole || number.is_i64() || number.is_u64() => number,
            _ => {
                let wanted = if whole { "a whole number" } else { "a number" };
                self.report(place, format!("expected {wanted}, found {value}"))
            }
        }
    }
}

/// Whether null means something for the field.
fn is_value(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => message.full_name() == "google.protobuf.Value",
        _ => false,
    }
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SPEC: &str = "ml_pipelines.PipelineSpec";

    fn faults(value: &Value) -> Vec<String> {
        let faults = canonical(SPEC, value, "", UnknownFields::Refuse).unwrap_err();
        let lines = faults.iter();
        lines
            .map(|fault| format!("{}: {}", fault.field, fault.description))
            .collect()
    }

    #[test]
    fn names_enums_and_numbers_get_their_one_form() {
        let written = json!({
            "pipeline_info": {"name": "p", "description": null},
            "root": {"inputDefinitions": {"parameters": {"n": {
                "parameter_type": 2.0, "default_value": {"a": [1.0, 1.5, null]}, "isOptional": true
            }}}}
        });

        let read = canonical(SPEC, &written, "", UnknownFields::Refuse).unwrap();

        assert_eq!(
            read,
            json!({
                "pipelineInfo": {"name": "p"},
                "root": {"inputDefinitions": {"parameters": {"n": {
                    "parameterType": "NUMBER_INTEGER",
                    "defaultValue": {"a": [1, 1.5, null]},
                    "isOptional": true
                }}}}
            })
        );
        // What is canonical stays as it is.
        assert_eq!(canonical(SPEC, &read, "", UnknownFields::Refuse), Ok(read));
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let found = faults(&json!({
            "pipelineInfo": "p",
            "sort": 1,
            "root": {
                "dag": {"tasks": []},
                "inputDefinitions": {"parameters": {"n": {
                    "parameterType": "NUMBERS", "isOptional": "yes"
                }}}
            }
        }));

        assert_eq!(
            found,
            [
                "pipelineInfo: expected an object, found text",
                "root.dag.tasks: expected an object, found a list",
                "root.inputDefinitions.parameters.n.isOptional: expected true or false, found text",
                "root.inputDefinitions.parameters.n.parameterType: \"NUMBERS\" is not a value of \
                 ParameterTypeEnum",
                "sort: unknown field \"sort\" in PipelineSpec",
            ]
        );
    }

    #[test]
    fn unknown_fields_are_left_out_where_they_are_expected() {
        let written = json!({"@type": "x", "pipelineInfo": {"name": "p", "more": 1}});

        let read = canonical(SPEC, &written, "", UnknownFields::Discard);

        assert_eq!(read, Ok(json!({"pipelineInfo": {"name": "p"}})));
    }

    #[test]
    fn numbers_enums_and_maps_are_read_in_every_form_that_protobuf_prints() {
        let written = json!({
            "components": {"c": {"dag": {"tasks": {"t": {
                "retryPolicy": {"maxRetryCount": "3", "backoffFactor": 2.0, "backoffDuration": "1s"},
                "dependentTasks": ["a", "b"]
            }}}}},
            "root": {"inputDefinitions": {"parameters": {
                "by_name": {"parameterType": "STRING"}, "by_number": {"parameterType": 3}
            }}}
        });

        let read = canonical(SPEC, &written, "", UnknownFields::Refuse).unwrap();

        let task = &read["components"]["c"]["dag"]["tasks"]["t"];
        assert_eq!(
            *task,
            json!({
                "retryPolicy": {"maxRetryCount": 3, "backoffFactor": 2, "backoffDuration": "1s"},
                "dependentTasks": ["a", "b"]
            })
        );
        let types = &read["root"]["inputDefinitions"]["parameters"];
        assert_eq!(types["by_name"], types["by_number"]);
        let found = faults(&json!({"components": {"c": {"dag": {"tasks": {"t": {
            "retryPolicy": {"maxRetryCount": 1.5}, "dependentTasks": "a"
        }}}}}}));
        assert_eq!(
            found,
            [
                "components.c.dag.tasks.t.dependentTasks: expected a list, found text",
                "components.c.dag.tasks.t.retryPolicy.maxRetryCount: expected a whole number, \
                 found 1.5",
            ]
        );
    }

    #[test]
    fn of_one_choice_one_is_taken() {
        let both = json!({"root": {"dag": {}, "executorLabel": "e"}});
        assert_eq!(
            faults(&both),
            ["root.executorLabel: \"dag\" is given as well, and only one may be"]
        );
        let unknown =
            canonical("none.Such", &json!({}), "spec", UnknownFields::Refuse).unwrap_err();
        assert_eq!(unknown[0].description, "there is no message none.Such");
    }

    #[test]
    fn one_field_under_two_names_and_deep_values_are_refused() {
        let found = faults(&json!({"pipeline_info": {"name": "p"}, "pipelineInfo": {"name": "q"}}));
        assert_eq!(found, ["pipeline_info: given twice"]);
        let deep = (0..80).fold(json!(1), |inner, _| json!([inner]));
        let place = json!({"root": {"inputDefinitions": {"parameters": {"n": {
            "defaultValue": deep
        }}}}});
        let found = faults(&place);
        assert!(
            found[0].starts_with("root.inputDefinitions.parameters.n.defaultValue: it nests 80"),
            "{found:?}"
        );
    }
}
