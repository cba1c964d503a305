//! JSON in which nothing is given twice: the second value would take the place of the first unseen.

use std::collections::HashSet;
use std::fmt;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What an object's keys are.
#[derive(Clone)]
pub(super) enum Shape {
    /// Fields, in one of two spellings.
    Message(MessageDescriptor),
    /// Keys of a map, whose values have a shape.
    Map(Box<Shape>),
    /// Whatever there is.
    Free,
}

impl Shape {
    pub(super) fn of_message(message: &MessageDescriptor) -> Self {
        // Well-known types have JSON forms of their own: the keys of a `Struct` are no fields.
        let own = message.full_name().starts_with("google.protobuf.");
        if own {
            Self::Free
        } else {
            Self::Message(message.clone())
        }
    }

    pub(super) fn of_field(field: &FieldDescriptor) -> Self {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                Self::Map(Box::new(Self::of_field(&entry.map_entry_value_field())))
            }
            Kind::Message(message) => Self::of_message(&message),
            _ => Self::Free,
        }
    }

    /// A key in one spelling, and the shape of its value.
    fn resolve_key(&self, key: String) -> (String, Self) {
        match self {
            Self::Map(value) => (key, (**value).clone()),
            Self::Free => (key, Self::Free),
            Self::Message(message) => {
                let field = message.get_field_by_json_name(&key);
                match field.or_else(|| message.get_field_by_name(&key)) {
                    Some(field) => (field.name().to_owned(), Self::of_field(&field)),
                    None => (key, Self::Free),
                }
            }
        }
    }
}

/// Reads a JSON text to its end, and refuses a key that its object has twice.
pub(super) fn check(text: &[u8], shape: &Shape) -> Result<(), serde_json::Error> {
    UniqueKeys(shape).deserialize(&mut serde_json::Deserializer::from_slice(text))
}

struct UniqueKeys<'s>(&'s Shape);

impl<'de> DeserializeSeed<'de> for UniqueKeys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(UniqueKeys(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            let (key, shape) = self.0.resolve_key(key);
            if seen.contains(&key) {
                // The error is then placed behind the value, where `json_place` knows the key.
                entries.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom(format_args!("{key} is given twice")));
            }
            seen.insert(key);
            entries.next_value_seed(UniqueKeys(&shape))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Option<String> {
        let pool = ferroflow_proto::pool();
        let run = pool.get_message_by_name("kubeflow.pipelines.backend.api.v2beta1.Run");
        let shape = Shape::of_message(&run.unwrap());
        check(text.as_bytes(), &shape)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn a_key_is_given_once() {
        for text in [
            r#"{"display_name": "a", "displayName": "b"}"#,
            r#"{"runtime_config": {"pipeline_root": "a", "pipelineRoot": "b"}}"#,
            r#"{"runtime_config": {"parameters": {"a": 1, "a": 2}}}"#,
            r#"{"runtime_config": {"parameters": {"a": {"b": [{"c": 1, "c": 1}]}}}}"#,
            r#"{"state_history": [{"state": 1, "state": 2}]}"#,
            r#"{"pipeline_spec": {"x": 1, "x": 1}}"#,
        ] {
            let problem = problem(text).unwrap();
            assert!(problem.contains("is given twice"), "{text}: {problem}");
        }
    }

    #[test]
    fn what_only_looks_alike_is_not_the_same() {
        for text in [
            // Keys of maps and of free values have one spelling.
            r#"{"runtime_config": {"parameters": {"display_name": 1, "displayName": 2}}}"#,
            r#"{"pipeline_spec": {"display_name": 1, "displayName": 2}}"#,
            r#"[{"display_name": "a"}, {"display_name": "b"}]"#,
            r#"{"a": null, "b": -1, "c": 1.5, "d": "x", "e": true, "f": 18446744073709551615}"#,
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
    }
}
