//! A tree to a value.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::ExprError;
use super::parse::{Node, Operator};
use crate::values;

type Result<T> = std::result::Result<T, ExprError>;

fn error<T>(message: String) -> Result<T> {
    Err(ExprError(message))
}

pub(super) fn eval(node: &Node, scope: &Value) -> Result<Value> {
    match node {
        Node::Null => Ok(Value::Null),
        Node::Bool(flag) => Ok(Value::Bool(*flag)),
        Node::Int(number) => Ok(Value::from(*number)),
        Node::Double(number) => double(*number),
        Node::Text(text) => Ok(Value::String(text.clone())),
        Node::Name(name) => field(scope, name),
        Node::List(items) => items
            .iter()
            .map(|item| eval(item, scope))
            .collect::<Result<_>>()
            .map(Value::Array),
        Node::Map(entries) => map(entries, scope),
        Node::Field(of, name) => field(&eval(of, scope)?, name),
        Node::Index(of, key) => index(&eval(of, scope)?, &eval(key, scope)?),
        Node::Call(name, arguments) => {
            let arguments: Vec<_> = arguments
                .iter()
                .map(|argument| eval(argument, scope))
                .collect::<Result<_>>()?;
            call(name, &arguments)
        }
        Node::Not(inner) => Ok(Value::Bool(!boolean(&eval(inner, scope)?)?)),
        Node::Negate(inner) => {
            arithmetic(Operator::Subtract, &Value::from(0), &eval(inner, scope)?)
        }
        Node::Binary(operator, left, right) => binary(*operator, left, right, scope),
        Node::Choice(condition, then, otherwise) => {
            let branch = if boolean(&eval(condition, scope)?)? {
                then
            } else {
                otherwise
            };
            eval(branch, scope)
        }
    }
}

fn map(entries: &[(Node, Node)], scope: &Value) -> Result<Value> {
    let mut fields = Map::new();
    for (key, value) in entries {
        match eval(key, scope)? {
            Value::String(key) => fields.insert(key, eval(value, scope)?),
            other => return error(format!("a key must be text, not {other}")),
        };
    }
    Ok(Value::Object(fields))
}

fn field(of: &Value, name: &str) -> Result<Value> {
    match of {
        Value::Object(fields) => match fields.get(name) {
            Some(value) => Ok(value.clone()),
            None => error(format!("no such key: {name}")),
        },
        other => error(format!("{other} has no field {name}")),
    }
}

fn index(of: &Value, key: &Value) -> Result<Value> {
    match (of, key) {
        (Value::Object(_), Value::String(name)) => field(of, name),
        (Value::Array(items), Value::Number(number)) => {
            let place = number
                .as_u64()
                .and_then(|place| usize::try_from(place).ok());
            match place.and_then(|place| items.get(place)) {
                Some(item) => Ok(item.clone()),
                None => error(format!(
                    "index {number} is outside a list of {}",
                    items.len()
                )),
            }
        }
        _ => error(format!("{of} cannot be indexed with {key}")),
    }
}

fn boolean(value: &Value) -> Result<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        other => error(format!("{other} is neither true nor false")),
    }
}

fn binary(operator: Operator, left: &Node, right: &Node, scope: &Value) -> Result<Value> {
    match operator {
        // CEL's logic is commutative: an error on one side does not matter if the other decides.
        Operator::And | Operator::Or => {
            let decides = operator == Operator::Or;
            let sides = [left, right].map(|side| eval(side, scope).and_then(|side| boolean(&side)));
            if sides.contains(&Ok(decides)) {
                return Ok(Value::Bool(decides));
            }
            let [left, right] = sides;
            left.and(right).map(Value::Bool)
        }
        _ => {
            let (left, right) = (eval(left, scope)?, eval(right, scope)?);
            apply(operator, &left, &right)
        }
    }
}

fn apply(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    use Ordering::{Equal, Greater, Less};
    let ordered = |wanted: &[Ordering]| {
        compare(left, right).map(|found| Value::Bool(wanted.contains(&found)))
    };
    match operator {
        Operator::Equal => Ok(Value::Bool(equal(left, right)?)),
        Operator::NotEqual => Ok(Value::Bool(!equal(left, right)?)),
        Operator::Less => ordered(&[Less]),
        Operator::LessEqual => ordered(&[Less, Equal]),
        Operator::Greater => ordered(&[Greater]),
        Operator::GreaterEqual => ordered(&[Greater, Equal]),
        Operator::In => contains(right, left).map(Value::Bool),
        Operator::Add => match (left, right) {
            (Value::String(left), Value::String(right)) => {
                Ok(Value::String(format!("{left}{right}")))
            }
            (Value::Array(left), Value::Array(right)) => {
                Ok(Value::Array(left.iter().chain(right).cloned().collect()))
            }
            _ => arithmetic(operator, left, right),
        },
        _ => arithmetic(operator, left, right),
    }
}

/// Values of different kinds are a mistake, except that numbers compare across kinds and anything
/// may be compared with null.
fn equal(left: &Value, right: &Value) -> Result<bool> {
    match (left, right) {
        (Value::Number(_), Value::Number(_)) => Ok(compare(left, right)? == Ordering::Equal),
        (Value::Null, other) | (other, Value::Null) => Ok(other.is_null()),
        (Value::Array(left), Value::Array(right)) => {
            let mut same = left.len() == right.len();
            for (left, right) in left.iter().zip(right) {
                same &= equal(left, right)?;
            }
            Ok(same)
        }
        (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Object(_), Value::Object(_)) => Ok(left == right),
        _ => error(format!("{left} and {right} cannot be compared")),
    }
}

fn compare(left: &Value, right: &Value) -> Result<Ordering> {
    let unordered = || ExprError(format!("{left} and {right} cannot be compared"));
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => as_f64(a).partial_cmp(&as_f64(b)).ok_or_else(unordered),
        },
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        _ => Err(unordered()),
    }
}

fn as_f64(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

fn contains(list: &Value, item: &Value) -> Result<bool> {
    match (list, item) {
        // An item of another kind is not the one that is looked for; only `==` with it is an error.
        (Value::Array(items), _) => Ok(items.iter().any(|one| equal(one, item) == Ok(true))),
        (Value::Object(fields), Value::String(key)) => Ok(fields.contains_key(key)),
        _ => error(format!("{item} cannot be looked for in {list}")),
    }
}

fn double(number: f64) -> Result<Value> {
    // CEL has infinities and NaN, JSON has neither: such a result is an error here.
    match Number::from_f64(number) {
        Some(number) => Ok(Value::Number(number)),
        None => error(format!("{number} is not a finite number")),
    }
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    let (Value::Number(a), Value::Number(b)) = (left, right) else {
        return error(format!("{left} and {right} are not both numbers"));
    };
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        let result = match operator {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        };
        return match result {
            Some(result) => Ok(Value::from(result)),
            None => error(format!("{a} and {b}: overflow or division by zero")),
        };
    }
    let (a, b) = (as_f64(a), as_f64(b));
    match operator {
        Operator::Add => double(a + b),
        Operator::Subtract => double(a - b),
        Operator::Multiply => double(a * b),
        Operator::Divide => double(a / b),
        _ => error("% is for whole numbers only".to_owned()),
    }
}

fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    let unfit = || {
        ExprError(format!(
            "{name} cannot be used with {}",
            Value::from(arguments)
        ))
    };
    match (name, arguments) {
        ("parseJson", [Value::String(text)]) => serde_json::from_str(text)
            .map(values::normalize)
            .map_err(|problem| ExprError(format!("parseJson: {problem}: {text}"))),
        ("int", [Value::String(text)]) => text.parse::<i64>().map(Value::from).map_err(|_| unfit()),
        ("int", [Value::Number(number)]) => {
            // CEL rounds towards zero.
            let whole = number
                .as_i64()
                .or_else(|| values::exact_integer(as_f64(number).trunc()));
            whole.map(Value::from).ok_or_else(unfit)
        }
        ("double", [Value::String(text)]) => {
            text.parse::<f64>().map_err(|_| unfit()).and_then(double)
        }
        ("double", [Value::Number(number)]) => double(as_f64(number)),
        ("string", [value]) => Ok(Value::String(values::to_text(value))),
        ("bool", [Value::Bool(flag)]) => Ok(Value::Bool(*flag)),
        ("bool", [Value::String(text)]) => text.parse().map(Value::Bool).map_err(|_| unfit()),
        // CEL counts code points, not bytes.
        ("size", [Value::String(text)]) => Ok(Value::from(text.chars().count())),
        ("size", [Value::Array(items)]) => Ok(Value::from(items.len())),
        ("size", [Value::Object(fields)]) => Ok(Value::from(fields.len())),
        ("startsWith", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.starts_with(part.as_str())))
        }
        ("endsWith", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.ends_with(part.as_str())))
        }
        ("contains", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.contains(part.as_str())))
        }
        _ => Err(unfit()),
    }
}
