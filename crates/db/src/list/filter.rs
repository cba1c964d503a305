//! What clients filter by, as conditions.

use ferroflow_types::listing::{Operand, Operation, Predicate};
use ferroflow_types::{Error, FieldViolation};

use super::plan::Conditions;
use super::{ColumnType, Table};

fn wrong(key: &str, problem: &str) -> Error {
    let violation = FieldViolation::new(format!("filter.{key}"), problem);
    Error::violations("FILTER_INVALID", "Invalid filter", vec![violation])
}

/// Adds what a predicate says.
pub(super) fn filter(
    table: &Table,
    predicate: &Predicate,
    sqlite: bool,
    conditions: &mut Conditions,
) -> Result<(), Error> {
    let key = predicate.key.as_str();
    if let (true, Some(tag)) = (table.tagged, key.strip_prefix("tags.")) {
        let [Operand::Text(value)] = predicate.values.as_slice() else {
            return Err(wrong(key, "a tag is compared with one string_value"));
        };
        if predicate.operation != Operation::Equals {
            return Err(wrong(key, "tags can only be compared with EQUALS"));
        }
        let tag = conditions.bind(Operand::Text(tag.to_owned()));
        let value = conditions.bind(Operand::Text(value.clone()));
        conditions.and(format!(
            "id IN (SELECT owner_id FROM tags WHERE tags.key = {tag} AND tags.value = {value})"
        ));
        return Ok(());
    }
    let known = table.keys.iter().find(|(known, _, _)| *known == key);
    let Some((_, column, kind)) = known else {
        return Err(wrong(key, "no support for filtering on unrecognized field"));
    };
    let mut values = Vec::with_capacity(predicate.values.len());
    for value in &predicate.values {
        values.push(match (kind, value) {
            (ColumnType::Time, Operand::Number(seconds)) => {
                Operand::Number(seconds.saturating_mul(1000))
            }
            (ColumnType::Text | ColumnType::Optional, Operand::Text(text)) => {
                Operand::Text(text.clone())
            }
            (ColumnType::Time, Operand::Text(_)) => {
                return Err(wrong(key, "it is compared with a time"));
            }
            (ColumnType::Text | ColumnType::Optional, Operand::Number(_)) => {
                return Err(wrong(key, "it is compared with a string"));
            }
        });
    }
    let condition = condition(
        predicate.operation,
        column,
        *kind,
        values,
        sqlite,
        conditions,
    )
    .ok_or_else(|| wrong(key, "the operation and its value do not fit together"))?;
    conditions.and(condition);
    Ok(())
}

/// `column` contains `place`, in either case.
pub(super) fn contains(column: &str, place: &str, sqlite: bool) -> String {
    // In SQLite LIKE is that already, for the letters of ASCII.
    let like = if sqlite { "LIKE" } else { "ILIKE" };
    format!("{column} {like} {place} ESCAPE '\\'")
}

/// What LIKE finds a part of a text by.
pub(super) fn pattern(part: &str) -> String {
    let escaped = part
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    format!("%{escaped}%")
}

fn condition(
    operation: Operation,
    column: &str,
    kind: ColumnType,
    values: Vec<Operand>,
    sqlite: bool,
    conditions: &mut Conditions,
) -> Option<String> {
    let sign = match operation {
        Operation::Equals => "=",
        Operation::NotEquals => "<>",
        Operation::Greater => ">",
        Operation::GreaterEquals => ">=",
        Operation::Less => "<",
        Operation::LessEquals => "<=",
        Operation::In => {
            let places: Vec<_> = values
                .into_iter()
                .map(|value| conditions.bind(value))
                .collect();
            return (!places.is_empty()).then(|| format!("{column} IN ({})", places.join(", ")));
        }
        Operation::IsSubstring => {
            let [Operand::Text(part)] = values.as_slice() else {
                return None;
            };
            let place = conditions.bind(Operand::Text(pattern(part)));
            return Some(contains(column, &place, sqlite));
        }
    };
    // Clients speak of whole seconds, columns hold milliseconds.
    let column = match (kind, operation) {
        (ColumnType::Time, Operation::Equals | Operation::NotEquals) => {
            format!("({column} - {column} % 1000)")
        }
        _ => column.to_owned(),
    };
    let [value] = <[Operand; 1]>::try_from(values).ok()?;
    Some(format!("{column} {sign} {}", conditions.bind(value)))
}
