//! What answers show of large values: lists leave them out and say so, since a list of many would be
//! larger than a message may be.

use ferroflow_proto::json::map_to_struct;
use ferroflow_types::limit::bytes_of;
use prost_types::Struct;
use serde_json::{Map, Value};

/// Bytes of a value that lists show.
const LISTED: u64 = 16 * 1024;

/// Bytes of values in one answer. When they are used up, only small ones are shown.
const ANSWER: u64 = 16 * 1024 * 1024;

/// Bytes of a value that is shown always.
const SMALL: u64 = 256;

/// How many bytes of values an answer may still show.
#[derive(Debug)]
pub(super) struct Allowance {
    each: u64,
    left: u64,
}

impl Allowance {
    /// That of a list.
    pub(super) fn of_list() -> Self {
        Self {
            each: LISTED,
            left: ANSWER,
        }
    }

    /// That of one object.
    pub(super) fn of_one() -> Self {
        Self {
            each: ANSWER,
            left: ANSWER,
        }
    }

    /// Whether a value may be shown; if so, its bytes are used up.
    pub(super) fn takes(&mut self, bytes: u64) -> bool {
        let taken = bytes <= SMALL || (bytes <= self.each && bytes <= self.left);
        if taken {
            self.left = self.left.saturating_sub(bytes);
        }
        taken
    }

    /// The values that may be shown, and the names of the others.
    pub(super) fn values<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a String, &'a Value)>,
    ) -> (Struct, Vec<String>) {
        let (mut shown, mut elided) = (Map::new(), Vec::new());
        for (name, value) in values {
            if self.takes(bytes_of(value)) {
                shown.insert(name.clone(), value.clone());
            } else {
                elided.push(name.clone());
            }
        }
        (map_to_struct(&shown), elided)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn text(bytes: usize) -> Value {
        Value::String("x".repeat(bytes))
    }

    #[test]
    fn large_values_are_named_and_not_shown() {
        let values = BTreeMap::from([
            ("large".to_owned(), text(16 * 1024 + 1)),
            ("small".to_owned(), text(10)),
        ]);

        let (shown, elided) = Allowance::of_list().values(&values);

        assert_eq!(shown.fields.keys().collect::<Vec<_>>(), ["small"]);
        assert_eq!(elided, ["large"]);
        let (_, elided) = Allowance::of_one().values(&values);
        assert!(elided.is_empty(), "{elided:?}");
    }

    #[test]
    fn many_values_of_middling_size_are_bounded_as_well() {
        let mut allowance = Allowance::of_list();
        let taken = (0..10_000).filter(|_| allowance.takes(LISTED)).count() as u64;

        assert_eq!(taken, ANSWER / LISTED);
        assert!(allowance.takes(SMALL), "small values are shown always");
    }
}
