//! What clients say of lists, read: `sort_by`, `filter` (the JSON of Kubeflow's `Filter`), `page_size`,
//! `page_token`.

use ferroflow_db::page;
use ferroflow_types::json::exact_integer;
use ferroflow_types::listing::{Direction, Listing, Operand, Operation, PageStart, Predicate};
use ferroflow_types::{Error, FieldViolation, Timestamp};
use serde_json::{Map, Value};

/// A list request as it came.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// The token of the page before.
    pub page_token: String,
    /// Entries on a page; 0 for the default.
    pub page_size: i32,
    /// A key, then optionally `asc` or `desc`.
    pub sort_by: String,
    /// The JSON of a Filter.
    pub filter: String,
}

// Those of upstream, which shows 200 entries to whoever asks for more.
const PAGE_DEFAULT: i64 = 20;
const PAGE_MAX: i64 = 200;

fn invalid_field(field: &str, problem: impl Into<String>) -> Error {
    let violations = vec![FieldViolation::new(field, problem)];
    Error::violations("LIST_INVALID", "Invalid input error", violations)
}

/// Entries on a page: `default` of them where the request says 0, and at most `max`.
///
/// # Errors
/// Invalid for a negative size.
pub fn page_size(given: i32, default: i64, max: i64) -> Result<i64, Error> {
    match i64::from(given) {
        0 => Ok(default),
        size @ 1.. => Ok(size.min(max)),
        size => Err(invalid_field(
            "page_size",
            format!("{size} must not be negative"),
        )),
    }
}

/// The listing that a request asks for.
///
/// # Errors
/// Invalid, with the field that is wrong.
pub fn listing(request: &ListRequest) -> Result<Listing, Error> {
    let page_size = page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)?;
    let predicates = match request.filter.as_str() {
        "" => Vec::new(),
        text => predicates(text)?,
    };
    let (sort_key, direction) = sorting(&request.sort_by)?;
    if request.page_token.is_empty() {
        return Ok(Listing {
            predicates,
            sort_key,
            direction,
            page_size,
            start: None,
        });
    }
    let start: PageStart = page::decode(&request.page_token)?;
    // As upstream: with a token, order and filter may be left out, but not be others.
    let same_order =
        request.sort_by.is_empty() || (sort_key == start.sort_key && direction == start.direction);
    let same_filter = request.filter.is_empty() || predicates == start.predicates;
    if !same_order || !same_filter {
        return Err(invalid_field(
            "page_token",
            "page token does not match the supplied sort by and/or filtering criteria",
        ));
    }
    Ok(Listing {
        predicates: start.predicates.clone(),
        sort_key: start.sort_key.clone(),
        direction: start.direction,
        page_size,
        start: Some(start),
    })
}

fn sorting(text: &str) -> Result<(String, Direction), Error> {
    let mut words = text.split_whitespace();
    // Upstream's default, and its reading of both words in any case.
    let key = words.next().unwrap_or("created_at").to_lowercase();
    let direction = match words.next().map(str::to_lowercase).as_deref() {
        None | Some("asc") => Direction::Ascending,
        Some("desc") => Direction::Descending,
        Some(_) => return Err(bad_sort(text)),
    };
    if words.next().is_some() {
        Err(bad_sort(text))
    } else {
        Ok((key, direction))
    }
}

fn bad_sort(text: &str) -> Error {
    invalid_field(
        "sort_by",
        format!("Received invalid sort by format {text:?}: a key, then asc or desc"),
    )
}

/// The JSON of a filter. Upstream decodes it once more than the query that it came in, so there are
/// clients that encode it twice; a text that is JSON already is taken as it is.
fn filter_json(text: &str) -> Result<Value, Error> {
    let parse_error = match serde_json::from_str(text) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => invalid_field("filter", format!("not the JSON of a filter: {error}")),
    };
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    let parsed = decoded
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok());
    parsed.ok_or(parse_error)
}

fn predicates(text: &str) -> Result<Vec<Predicate>, Error> {
    let parsed = filter_json(text)?;
    let Value::Object(fields) = &parsed else {
        return Err(invalid_field("filter", "it must be an object"));
    };
    if let Some(unknown) = fields.keys().find(|key| *key != "predicates") {
        return Err(invalid_field(
            "filter",
            format!("unknown field {unknown:?}"),
        ));
    }
    let list = match fields.get("predicates") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(list)) => list.as_slice(),
        Some(_) => return Err(invalid_field("filter.predicates", "it must be a list")),
    };
    let predicates = list.iter().enumerate();
    predicates
        .map(|(at, predicate)| {
            let place = format!("filter.predicates[{at}]");
            match predicate {
                Value::Object(fields) => self::predicate(&place, fields),
                _ => Err(invalid_field(&place, "it must be an object")),
            }
        })
        .collect()
}

fn predicate(place: &str, fields: &Map<String, Value>) -> Result<Predicate, Error> {
    let mut key = String::new();
    let mut operation = None;
    let mut values = None;
    for (name, value) in fields {
        match name.as_str() {
            "key" => value
                .as_str()
                .ok_or_else(|| invalid_field(place, "key must be a text"))?
                .clone_into(&mut key),
            "operation" => operation = Some(self::operation(place, value)?),
            _ => values = Some(operands(place, name, value)?),
        }
    }
    let operation = operation.ok_or_else(|| invalid_field(place, "operation is missing"))?;
    let values = values.ok_or_else(|| invalid_field(place, "a value is missing"))?;
    if values.len() != 1 && operation != Operation::In {
        return Err(invalid_field(place, "only IN takes several values"));
    }
    Ok(Predicate {
        key,
        operation,
        values,
    })
}

fn operation(place: &str, value: &Value) -> Result<Operation, Error> {
    let number = value.as_f64().and_then(exact_integer);
    // Names and numbers of `Predicate.Operation` in KFP's contract, which has no 4.
    Ok(match (value.as_str(), number) {
        (Some("EQUALS"), _) | (_, Some(1)) => Operation::Equals,
        (Some("NOT_EQUALS"), _) | (_, Some(2)) => Operation::NotEquals,
        (Some("GREATER_THAN"), _) | (_, Some(3)) => Operation::Greater,
        (Some("GREATER_THAN_EQUALS"), _) | (_, Some(5)) => Operation::GreaterEquals,
        (Some("LESS_THAN"), _) | (_, Some(6)) => Operation::Less,
        (Some("LESS_THAN_EQUALS"), _) | (_, Some(7)) => Operation::LessEquals,
        (Some("IN"), _) | (_, Some(8)) => Operation::In,
        (Some("IS_SUBSTRING"), _) | (_, Some(9)) => Operation::IsSubstring,
        _ => return Err(invalid_field(place, format!("unknown operation {value}"))),
    })
}

/// Values by the name of their field, in either spelling.
fn operands(place: &str, name: &str, value: &Value) -> Result<Vec<Operand>, Error> {
    let type_mismatch = || invalid_field(place, format!("{name} cannot be {value}"));
    let number = |value: &Value| {
        let text = value.as_str().and_then(|text| text.parse::<i64>().ok());
        text.or_else(|| value.as_f64().and_then(exact_integer))
            .map(Operand::Number)
    };
    let text = |value: &Value| value.as_str().map(|text| Operand::Text(text.to_owned()));
    let time = |value: &Value| {
        let at: Timestamp = value.as_str()?.parse().ok()?;
        // Upstream compares times in whole seconds.
        Some(Operand::Number(at.seconds()))
    };
    let several = |one: &dyn Fn(&Value) -> Option<Operand>| {
        let list = value.get("values").and_then(Value::as_array)?;
        list.iter().map(one).collect::<Option<Vec<_>>>()
    };
    let found = match name {
        "int_value" | "intValue" | "long_value" | "longValue" => number(value).map(|one| vec![one]),
        "string_value" | "stringValue" => text(value).map(|one| vec![one]),
        "timestamp_value" | "timestampValue" => time(value).map(|one| vec![one]),
        "int_values" | "intValues" | "long_values" | "longValues" => several(&number),
        "string_values" | "stringValues" => several(&text),
        _ => return Err(invalid_field(place, format!("unknown field {name:?}"))),
    };
    found.ok_or_else(type_mismatch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(request: &ListRequest) -> String {
        listing(request).unwrap_err().to_string()
    }

    #[test]
    fn filters_come_in_both_spellings() {
        let filter = |text: &str| ListRequest {
            filter: text.to_owned(),
            ..ListRequest::default()
        };
        let camel = filter(r#"{"predicates":[{"operation":1,"key":"name","stringValue":"x"}]}"#);
        let snake =
            filter(r#"{"predicates":[{"operation":"EQUALS","key":"name","string_value":"x"}]}"#);

        assert_eq!(listing(&camel).unwrap(), listing(&snake).unwrap());
        for bad in [
            "{",
            "[]",
            "%7B",
            r#"{"predicates":{}}"#,
            r#"{"predicates":[{"key":1}]}"#,
            r#"{"predicates":[{"key":"a"}]}"#,
            r#"{"x":1}"#,
        ] {
            assert!(problem(&filter(bad)).contains("filter"), "{bad}");
        }
    }

    #[test]
    fn a_filter_may_be_encoded_once_more() {
        let value = |text: &str| {
            let request = ListRequest {
                filter: text.to_owned(),
                ..ListRequest::default()
            };
            let predicates = listing(&request).unwrap().predicates;
            predicates[0].values[0].clone()
        };
        let plain = |value: &str| {
            format!(r#"{{"predicates":[{{"operation":1,"key":"name","stringValue":"{value}"}}]}}"#)
        };
        let text = |value: &str| Operand::Text(value.to_owned());
        for name in ["a b", "50%", "a+b", "%41", "ü {}"] {
            let once = plain(name);
            let twice =
                percent_encoding::utf8_percent_encode(&once, percent_encoding::NON_ALPHANUMERIC);
            assert_eq!(value(&once), text(name));
            assert_eq!(value(&twice.to_string()), text(name));
        }
        // As forms encode it.
        let form = "%7B%22predicates%22%3A+%5B%7B%22operation%22%3A+1%2C+%22key%22%3A+%22name%22%2C+\
                    %22string_value%22%3A+%22a+b%22%7D%5D%7D";
        assert_eq!(value(form), text("a b"));
    }

    #[test]
    fn a_token_belongs_to_its_query() {
        let start = PageStart {
            sort_key: "name".to_owned(),
            direction: Direction::Descending,
            predicates: Vec::new(),
            value: Operand::Text("x".to_owned()),
            created_at: Some(1),
            id: "1".to_owned(),
            total: None,
            scope: None,
        };
        let page_token = page::encode(&start).unwrap();
        let request = ListRequest {
            page_token,
            ..ListRequest::default()
        };

        assert_eq!(listing(&request).unwrap().start, Some(start));
        let other = ListRequest {
            sort_by: "name asc".to_owned(),
            ..request.clone()
        };
        assert!(problem(&other).contains("page token does not match"));
        let broken = ListRequest {
            page_token: "x".to_owned(),
            ..request
        };
        assert!(problem(&broken).contains("Invalid page token"));
        let negative = ListRequest {
            page_size: -1,
            ..ListRequest::default()
        };
        assert!(problem(&negative).contains("page_size"));
    }
}
