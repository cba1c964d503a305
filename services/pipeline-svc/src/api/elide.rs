//! What answers show of large values: lists leave them out and say so, since a list of many would be
//! larger than a message may be.

use ferroflow_proto::json::map_to_struct;
use ferroflow_types::limit::bytes_of;
use prost_types::Struct;
use serde_json::{Map, Value};

/// Bytes of a value that lists show.
const LISTED_MAX: u64 = 16 * 1024;

/// Bytes of values in one answer. When they are used up, only small ones are shown.
const RESPONSE_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a value that is shown always.
const SMALL_MAX: u64 = 256;

/// How many bytes of values an answer may still show.
#[derive(Debug)]
pub(super) struct SizeBudget {
    value_max: u64,
    remaining: u64,
}

impl SizeBudget {
    /// That of a list.
    pub(super) fn for_list() -> Self {
        Self {
            value_max: LISTED_MAX,
            remaining: RESPONSE_MAX,
        }
    }

    /// That of one object.
    pub(super) fn for_object() -> Self {
        Self {
            value_max: RESPONSE_MAX,
            remaining: RESPONSE_MAX,
        }
    }

    /// Whether a value may be shown; if so, its bytes are used up.
    pub(super) fn try_take(&mut self, bytes: u64) -> bool {
        let taken = bytes <= SMALL_MAX || (bytes <= self.value_max && bytes <= self.remaining);
        if taken {
            self.remaining = self.remaining.saturating_sub(bytes);
        }
        taken
    }

    /// The values that may be shown, and the names of the others.
    pub(super) fn split_values<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a String, &'a Value)>,
    ) -> (Struct, Vec<String>) {
        let (mut shown, mut elided) = (Map::new(), Vec::new());
        for (name, value) in values {
            if self.try_take(bytes_of(value)) {
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

        let (shown, elided) = SizeBudget::for_list().split_values(&values);

        assert_eq!(shown.fields.keys().collect::<Vec<_>>(), ["small"]);
        assert_eq!(elided, ["large"]);
        let (_, elided) = SizeBudget::for_object().split_values(&values);
        assert!(elided.is_empty(), "{elided:?}");
    }

    #[test]
    fn many_values_of_middling_size_are_bounded_as_well() {
        let mut budget = SizeBudget::for_list();
        let taken = (0..10_000).filter(|_| budget.try_take(LISTED_MAX)).count() as u64;

        assert_eq!(taken, RESPONSE_MAX / LISTED_MAX);
        assert!(budget.try_take(SMALL_MAX), "small values are shown always");
    }
}
