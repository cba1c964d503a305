//! What a plain text means: the resolver and the constructors of PyYAML's `SafeLoader`.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Number, Value};

fn pattern(text: &str) -> Regex {
    Regex::new(&format!("^(?:{text})$")).expect("a valid expression")
}

// PyYAML's expressions: a float has a point, and a sign in its exponent (`1e3` and `1.5e3` are
// texts); without digits before the point it has no sign (`-.5` is a text).
static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    )
});

static INT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
    )
});

/// The value of a plain text.
///
/// # Errors
/// A number that JSON does not have.
pub(crate) fn plain(text: &str) -> Result<Value, String> {
    if let Some(flag) = boolean(text) {
        return Ok(Value::Bool(flag));
    }
    if is_null(text) {
        return Ok(Value::Null);
    }
    let numeric = text.starts_with(|first: char| first.is_ascii_digit() || "-+.".contains(first));
    if numeric && FLOAT.is_match(text) {
        return float(text);
    }
    if numeric && INT.is_match(text) {
        return integer(text);
    }
    Ok(Value::String(text.to_owned()))
}

/// The value of a text with one of YAML's own tags, by what follows `tag:yaml.org,2002:`.
///
/// # Errors
/// Says what the text is not.
pub(crate) fn tagged(tag: &str, text: &str) -> Result<Value, String> {
    let not = |what: &str| format!("{text:?} is not {what}");
    match tag {
        "str" => Ok(Value::String(text.to_owned())),
        "null" => Ok(Value::Null),
        "bool" => boolean(text)
            .map(Value::Bool)
            .ok_or_else(|| not("true or false")),
        "int" if INT.is_match(text) => integer(text),
        "int" => Err(not("a whole number")),
        "float" if FLOAT.is_match(text) => float(text),
        "float" if INT.is_match(text) => match integer(text)?.as_f64().and_then(Number::from_f64) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(not("a number")),
        },
        "float" => Err(not("a number")),
        other => Err(format!(
            "the tag !!{other} has no meaning in JSON: leave it out"
        )),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Sign and digits without underscores.
fn sign_and_digits(text: &str) -> (bool, String) {
    let digits = text.replace('_', "");
    let negative = digits.starts_with('-');
    (negative, digits.trim_start_matches(['-', '+']).to_owned())
}

fn integer(text: &str) -> Result<Value, String> {
    let (negative, digits) = sign_and_digits(text);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        i128::from_str_radix(binary, 2).ok()
    } else if let Some(hex) = digits.strip_prefix("0x") {
        i128::from_str_radix(hex, 16).ok()
    } else if digits.contains(':') {
        sexagesimal(&digits)
    } else if digits.len() > 1 && digits.starts_with('0') {
        // YAML 1.1 has octal numbers without `o`.
        i128::from_str_radix(&digits, 8).ok()
    } else {
        digits.parse().ok()
    };
    let value = magnitude.map(|magnitude| if negative { -magnitude } else { magnitude });
    let exact = value.and_then(|value| {
        let signed = i64::try_from(value).map(Value::from);
        signed
            .or_else(|_| u64::try_from(value).map(Value::from))
            .ok()
    });
    match exact {
        Some(exact) => Ok(exact),
        // Longer ones than 64 bits are doubles in JSON.
        None if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let sign = if negative { "-" } else { "" };
            double(&format!("{sign}{digits}"), text)
        }
        None => Err(format!(
            "{text} is no number of JSON: quote it to make it a text"
        )),
    }
}

/// `1:30` is ninety.
fn sexagesimal(digits: &str) -> Option<i128> {
    digits.split(':').try_fold(0_i128, |sum, part| {
        sum.checked_mul(60)?.checked_add(part.parse().ok()?)
    })
}

fn float(text: &str) -> Result<Value, String> {
    let (negative, digits) = sign_and_digits(text);
    let sign = if negative { "-" } else { "" };
    let Some((minutes, seconds)) = digits.rsplit_once(':') else {
        return double(&format!("{sign}{digits}"), text);
    };
    let sum = sexagesimal(minutes).and_then(|minutes| {
        let minutes: f64 = minutes.checked_mul(60)?.to_string().parse().ok()?;
        Some(minutes + seconds.parse::<f64>().ok()?)
    });
    match sum {
        Some(sum) => double(&format!("{sign}{sum}"), text),
        None => Err(format!(
            "{text} is no number of JSON: quote it to make it a text"
        )),
    }
}

fn double(digits: &str, text: &str) -> Result<Value, String> {
    let number = digits.parse().ok().and_then(Number::from_f64);
    number
        .map(Value::Number)
        .ok_or_else(|| format!("{text} is no number of JSON: quote it to make it a text"))
}
