//! Where in a JSON text its reader has stopped, as people call the place.

/// What the reader is in.
enum Container {
    /// An object, at the value of this key.
    Object(Option<String>),
    /// A list, at the item of this number.
    List(usize),
}

/// The place that an error of `serde_json` is at (its line and column), such as
/// `runtime_config.parameters.rates[2]`; empty at the top and where the error names no position.
pub fn place(text: &[u8], line: usize, column: usize) -> String {
    let mut place = String::new();
    for container in open_containers(&text[..offset(text, line, column)]) {
        match container {
            Container::Object(Some(key)) if place.is_empty() => place = key,
            Container::Object(Some(key)) => place = format!("{place}.{key}"),
            Container::Object(None) => {}
            Container::List(number) => place = format!("{place}[{number}]"),
        }
    }
    place
}

/// The number that JSON does not have, if the error is at one.
pub fn bare_number(text: &[u8], line: usize, column: usize) -> Option<&'static str> {
    let at = offset(text, line, column);
    let found = ["NaN", "Infinity"].into_iter();
    // serde_json reads the sign of `-Infinity` as that of a number, so the word may begin one byte
    // off.
    let is_near = |word: &&str| {
        (at.saturating_sub(1)..=at + 1).any(|from| {
            text.get(from..)
                .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        })
    };
    let mut found = found.filter(is_near);
    found.next()
}

/// Where the error is, in bytes.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    // Line 0 is serde_json's for an error without a position, as of a value that was parsed before.
    if line == 0 {
        return 0;
    }
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let begin = match line {
        1 => 0,
        line => ends
            .map(|(at, _)| at + 1)
            .nth(line - 2)
            .unwrap_or(text.len()),
    };
    // Columns are bytes, from 1.
    (begin + column.saturating_sub(1)).min(text.len())
}

/// What is open where a text ends.
fn open_containers(text: &[u8]) -> Vec<Container> {
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' => open.push(Container::Object(None)),
            b'[' => open.push(Container::List(0)),
            b'}' | b']' => {
                open.pop();
            }
            b',' => match open.last_mut() {
                Some(Container::Object(key)) => *key = None,
                Some(Container::List(number)) => *number += 1,
                None => {}
            },
            b'"' => {
                let begin = at;
                let Some(end) = end_of_text(text, begin) else {
                    return open;
                };
                at = end + 1;
                // The first text after `{` or `,` is a key; the next one is its value.
                if let Some(Container::Object(key @ None)) = open.last_mut() {
                    *key = Some(String::from_utf8_lossy(&text[begin..end]).into_owned());
                }
            }
            _ => {}
        }
    }
    open
}

/// Where the text that begins at `from` has its closing quote.
fn end_of_text(text: &[u8], from: usize) -> Option<usize> {
    let mut escaped = false;
    let rest = text.get(from..)?;
    let length = rest.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    length.map(|length| from + length)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn error_place(text: &str) -> (String, Option<&'static str>) {
        let error = serde_json::from_str::<Value>(text).unwrap_err();
        let (line, column) = (error.line(), error.column());
        let bytes = text.as_bytes();
        (place(bytes, line, column), bare_number(bytes, line, column))
    }

    #[test]
    fn the_place_is_named_by_keys_and_numbers() {
        let parameters =
            "{\"name\": \"a\\\"{\",\n \"parameters\": {\"a\": [1, {}], \"rates\": [1.5, NaN]}}";
        assert_eq!(
            error_place(parameters),
            ("parameters.rates[1]".to_owned(), Some("NaN"))
        );
        assert_eq!(
            error_place("{\"a\": -Infinity}"),
            ("a".to_owned(), Some("Infinity"))
        );
        assert_eq!(
            error_place("{\"a\": Infinity}"),
            ("a".to_owned(), Some("Infinity"))
        );
        assert_eq!(
            error_place("{\"a\": {\"text\": \"x\\ud800y\"}}").0,
            "a.text"
        );
        assert_eq!(error_place("{"), (String::new(), None));
        assert_eq!(error_place(""), (String::new(), None));
    }
}
