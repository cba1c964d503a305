//! Text to tokens.

use super::ExprError;

/// A token and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Name(String),
    Text(String),
    Int(i64),
    Double(f64),
    Symbol(&'static str),
}

/// Longer ones first, so that `<=` is not `<` and `=`.
const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]",
    "{", "}", ",", ".", "?", ":",
];

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ExprError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (kind, length) = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if first.is_ascii_digit() {
            number(rest, at)?
        } else if first == '_' || first.is_ascii_alphabetic() {
            let length = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
            let length = length.unwrap_or(rest.len());
            (Kind::Name(rest[..length].to_owned()), length)
        } else if first == '\'' || first == '"' {
            quoted(rest, first, at)?
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            (Kind::Symbol(symbol), symbol.len())
        } else {
            return Err(ExprError(format!("unexpected {first:?} at {at}")));
        };
        tokens.push(Token { at, kind });
        at += length;
    }
    Ok(tokens)
}

fn number(rest: &str, at: usize) -> Result<(Kind, usize), ExprError> {
    let bytes = rest.as_bytes();
    let mut end = 0;
    let mut whole = true;
    while let Some(byte) = bytes.get(end) {
        let after_exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E');
        match byte {
            b'0'..=b'9' => {}
            // A dot that no digit follows is a field access.
            b'.' if whole && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) => whole = false,
            b'e' | b'E' => whole = false,
            b'+' | b'-' if after_exponent => {}
            _ => break,
        }
        end += 1;
    }
    let text = &rest[..end];
    let bad = || ExprError(format!("{text} at {at} is not a number"));
    let kind = if whole {
        Kind::Int(text.parse().map_err(|_| bad())?)
    } else {
        Kind::Double(text.parse().map_err(|_| bad())?)
    };
    Ok((kind, end))
}

fn quoted(rest: &str, quote: char, at: usize) -> Result<(Kind, usize), ExprError> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((place, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((Kind::Text(text), place + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, c @ ('\\' | '\'' | '"' | '`' | '?'))) => text.push(c),
                // The compiler does not escape texts, so a lone backslash stands for itself.
                Some((_, c)) => text.extend(['\\', c]),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(ExprError(format!(
        "the text that begins at {at} has no end"
    )))
}
