//! How large one value may be, and what follows from that for everything that carries values.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes that one value may have: the text of a parameter, or the JSON of a list, a struct, an
/// artifact's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ValueLimit(u64);

const MIB: u64 = 1024 * 1024;

impl ValueLimit {
    /// What can be set, in bytes.
    pub const RANGE: std::ops::RangeInclusive<u64> = 64 * 1024..=64 * MIB;

    /// The largest message of the largest limit, for clients that do not know which one is set:
    /// [`Self::message`] of 64 MiB.
    pub const MESSAGE_MAX: usize = 480 * 1024 * 1024;

    /// The largest value.
    pub fn value(self) -> u64 {
        self.0
    }

    /// The largest request body: a value whose JSON is half escapes, and a specification beside it.
    pub fn body(self) -> usize {
        size(2 * self.0 + 8 * MIB)
    }

    /// The largest report of an executor: a task gives several values.
    pub fn report(self) -> u64 {
        4 * self.0
    }

    /// The largest message between services: a value beside a specification. A number of a list has
    /// two bytes of JSON at least, and eleven in a message.
    pub fn message(self) -> usize {
        size(6 * self.0 + 96 * MIB)
    }

    /// Whether a value of so many bytes is refused; why.
    pub fn check(self, bytes: u64) -> Result<(), String> {
        if bytes <= self.0 {
            return Ok(());
        }
        Err(format!(
            "it is {bytes} bytes, and a value may have {} (value_max): pass it as an artifact",
            self.0
        ))
    }
}

impl Default for ValueLimit {
    fn default() -> Self {
        Self(16 * MIB)
    }
}

impl TryFrom<u64> for ValueLimit {
    type Error = String;

    fn try_from(bytes: u64) -> Result<Self, String> {
        let range = Self::RANGE;
        if range.contains(&bytes) {
            return Ok(Self(bytes));
        }
        Err(format!(
            "value_max is {bytes} bytes: give {} to {}",
            range.start(),
            range.end()
        ))
    }
}

impl From<ValueLimit> for u64 {
    fn from(limit: ValueLimit) -> Self {
        limit.0
    }
}

/// Bytes of a value: of the text that it is, or of its JSON.
pub fn bytes_of(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        other => json_bytes(other),
    }
}

/// Bytes of an object's JSON.
pub fn bytes_of_map(fields: &Map<String, Value>) -> u64 {
    json_bytes(fields)
}

fn json_bytes(value: &impl Serialize) -> u64 {
    let mut counter = Counter(0);
    // A counter takes every write, and what is counted is JSON already.
    let _counted = serde_json::to_writer(&mut counter, value).is_ok();
    counter.0
}

struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_as_they_are_written() {
        assert_eq!(bytes_of(&"äb".into()), 3);
        assert_eq!(bytes_of(&serde_json::json!([1, "a"])), 7);
        assert_eq!(bytes_of(&serde_json::json!({"a": null})), 10);
    }

    #[test]
    fn whatever_carries_a_value_has_room_for_one() {
        for bytes in [
            *ValueLimit::RANGE.start(),
            16 * MIB,
            *ValueLimit::RANGE.end(),
        ] {
            let limit = ValueLimit::try_from(bytes).unwrap();
            assert!(limit.body() as u64 > 2 * limit.value());
            assert!(limit.message() > limit.body());
            assert!(limit.message() as u64 / 11 > limit.value() / 2);
            assert!(limit.report() > limit.value());
            assert!(limit.message() <= ValueLimit::MESSAGE_MAX);
            assert!(limit.check(bytes).is_ok());
            assert!(limit.check(bytes + 1).unwrap_err().contains("value_max"));
        }
        assert!(ValueLimit::try_from(1).is_err());
    }
}
