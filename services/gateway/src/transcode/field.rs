//! Fields by the names that parameters have, and what texts set them to.

use std::borrow::Cow;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use tonic::Status;

use super::bind::invalid;
use super::value::parse;
use crate::dialect::Dialect;
use crate::error::defect;

/// A field somewhere in a message, `a.b.c`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FieldPath {
    /// From the outermost message inwards.
    parents: Vec<FieldDescriptor>,
    field: FieldDescriptor,
    /// The entry of a map, `a.b[key]`.
    key: Option<String>,
}

/// Why a name is not that of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FieldPathError {
    /// No field is called like this.
    Unknown,
    /// This field is followed by a further name, and is no message that could have it.
    NoFields(String),
}

/// Who gives a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Path,
    Query,
}

impl FieldPath {
    /// The path that a name spells; each part as in the contract or as in JSON.
    pub(super) fn find(message: &MessageDescriptor, name: &str) -> Result<Self, FieldPathError> {
        // Before the path is split: a key may have dots of its own.
        let (path, key) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((path, key)) => (path, Some(key.to_owned())),
            None => (name, None),
        };
        let named = |message: &MessageDescriptor, part: &str| {
            let found = message.get_field_by_name(part);
            let found = found.or_else(|| message.get_field_by_json_name(part));
            found.ok_or(FieldPathError::Unknown)
        };
        let mut parts = path.split('.');
        let mut field = named(message, parts.next().unwrap_or_default())?;
        let mut parents = Vec::new();
        for part in parts {
            let inner = match field.kind() {
                Kind::Message(inner) if !field.is_list() && !field.is_map() => inner,
                _ => return Err(FieldPathError::NoFields(field.name().to_owned())),
            };
            parents.push(std::mem::replace(&mut field, named(&inner, part)?));
        }
        if key.is_some() && !field.is_map() {
            return Err(FieldPathError::Unknown);
        }
        Ok(Self {
            parents,
            field,
            key,
        })
    }

    /// The names of the contract.
    pub(super) fn name(&self) -> String {
        let names: Vec<_> = self.parents.iter().map(FieldDescriptor::name).collect();
        let path = [&names[..], &[self.field.name()]].concat().join(".");
        match &self.key {
            Some(key) => format!("{path}[{key}]"),
            None => path,
        }
    }

    /// The outermost field.
    pub(super) fn first(&self) -> &str {
        self.parents.first().unwrap_or(&self.field).name()
    }

    /// Whether it takes any number of values.
    pub(super) fn is_list(&self) -> bool {
        self.field.is_list()
    }

    /// Whether it is an entry of a map.
    pub(super) fn is_entry(&self) -> bool {
        self.key.is_some()
    }

    /// What it holds.
    pub(super) fn kind(&self) -> Kind {
        self.field.kind()
    }

    /// Whether a message has a value here. Without explicit presence, the default is none.
    pub(super) fn is_set(&self, message: &DynamicMessage) -> bool {
        let mut at = Cow::Borrowed(message);
        for field in &self.parents {
            let inner = match at.get_field(field).as_ref() {
                Value::Message(inner) => inner.clone(),
                _ => return false,
            };
            at = Cow::Owned(inner);
        }
        at.has_field(&self.field)
    }

    /// Sets it from a text.
    pub(super) fn set(
        &self,
        message: &mut DynamicMessage,
        text: &str,
        origin: Origin,
        dialect: &dyn Dialect,
    ) -> Result<(), Status> {
        let mut at = message;
        for field in &self.parents {
            self.check_choice(at, field)?;
            at = match at.get_field_mut(field) {
                Value::Message(inner) => inner,
                _ => return Err(defect("a message field holds no message")),
            };
        }
        self.check_choice(at, &self.field)?;
        if let Some(key) = &self.key {
            return self.set_entry(at, key, text, dialect);
        }
        let kind = self.field.kind();
        if self.field.is_map() || (self.field.is_list() && matches!(kind, Kind::Message(_))) {
            let name = self.name();
            return Err(invalid(format!(
                "parameter {name}: maps and lists of messages cannot be given in a query"
            )));
        }
        let value = self.parsed(&kind, text, dialect)?;
        if self.field.is_list() {
            if let Value::List(list) = at.get_field_mut(&self.field) {
                list.push(value);
            }
            return Ok(());
        }
        // The body may repeat what the path says, but not contradict it.
        let differs = at.has_field(&self.field) && *at.get_field(&self.field) != value;
        if origin == Origin::Path && differs {
            let name = self.name();
            return Err(invalid(format!(
                "{name} differs between the path and the body"
            )));
        }
        at.set_field(&self.field, value);
        Ok(())
    }

    fn parsed(&self, kind: &Kind, text: &str, dialect: &dyn Dialect) -> Result<Value, Status> {
        parse(kind, text, dialect).ok_or_else(|| {
            let name = self.name();
            match kind {
                Kind::Message(message) => {
                    let kind = message.name();
                    invalid(format!("parameter {name}: {text:?} is not a {kind}"))
                }
                kind => invalid(format!("parameter {name}: {text:?} is not a {kind:?}")),
            }
        })
    }

    /// Refuses a second field of a `oneof`: setting it would clear the first in silence.
    fn check_choice(&self, at: &DynamicMessage, field: &FieldDescriptor) -> Result<(), Status> {
        let Some(choice) = field.containing_oneof() else {
            return Ok(());
        };
        let mut others = choice.fields().filter(|other| other != field);
        match others.find(|other| at.has_field(other)) {
            None => Ok(()),
            Some(other) => {
                let (name, other, choice) = (self.name(), other.name(), choice.name());
                Err(invalid(format!(
                    "parameter {name}: {other} is given, and there is one {choice}"
                )))
            }
        }
    }

    fn set_entry(
        &self,
        at: &mut DynamicMessage,
        key: &str,
        text: &str,
        dialect: &dyn Dialect,
    ) -> Result<(), Status> {
        let name = self.name();
        let kind = self.field.kind();
        let entry = kind.as_message();
        let entry = entry.ok_or_else(|| defect("a map has no entries"))?;
        let key = match entry.map_entry_key_field().kind() {
            Kind::String => Some(MapKey::String(key.to_owned())),
            kind => parse(&kind, key, dialect).and_then(|key| match key {
                Value::Bool(key) => Some(MapKey::Bool(key)),
                Value::I32(key) => Some(MapKey::I32(key)),
                Value::I64(key) => Some(MapKey::I64(key)),
                Value::U32(key) => Some(MapKey::U32(key)),
                Value::U64(key) => Some(MapKey::U64(key)),
                _ => None,
            }),
        };
        let key = key.ok_or_else(|| invalid(format!("parameter {name}: the key is none")))?;
        let value = self.parsed(&entry.map_entry_value_field().kind(), text, dialect)?;
        if let Value::Map(entries) = at.get_field_mut(&self.field) {
            entries.insert(key, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_path(message: &str, name: &str) -> Result<FieldPath, FieldPathError> {
        let pool = ferroflow_proto::pool();
        FieldPath::find(&pool.get_message_by_name(message).unwrap(), name)
    }

    const RUN: &str = "kubeflow.pipelines.backend.api.v2beta1.Run";

    #[test]
    fn both_spellings_are_one_field_path() {
        for (name, expected) in [
            ("run_id", "run_id"),
            ("runId", "run_id"),
            (
                "pipelineVersionReference.pipelineId",
                "pipeline_version_reference.pipeline_id",
            ),
            ("pluginsInput[a.b]", "plugins_input[a.b]"),
        ] {
            assert_eq!(field_path(RUN, name).unwrap().name(), expected, "{name}");
        }
    }

    #[test]
    fn a_default_is_not_set_without_presence() {
        let pool = ferroflow_proto::pool();
        let run = pool.get_message_by_name(RUN).unwrap();
        let dialect = crate::dialect::for_path("/apis/v2beta1/runs");
        for (name, text, expected) in [
            ("display_name", "", false),
            ("display_name", "a", true),
            ("state", "0", false),
            ("state", "1", true),
            ("pipeline_version_reference.pipeline_id", "", false),
            ("pipeline_version_reference.pipeline_id", "a", true),
            // A field of a oneof has presence.
            ("pipeline_version_id", "", true),
        ] {
            let path = field_path(RUN, name).unwrap();
            let mut message = DynamicMessage::new(run.clone());
            assert!(!path.is_set(&message), "{name}");
            let set = path.set(&mut message, text, Origin::Query, dialect);
            set.unwrap();
            assert_eq!(path.is_set(&message), expected, "{name}={text}");
        }
    }

    #[test]
    fn what_is_no_field_is_told() {
        for (name, problem) in [
            ("nope", FieldPathError::Unknown),
            ("", FieldPathError::Unknown),
            ("error.nope", FieldPathError::Unknown),
            ("run_id[x]", FieldPathError::Unknown),
            ("run_id.x", FieldPathError::NoFields("run_id".to_owned())),
            (
                "state_history.state",
                FieldPathError::NoFields("state_history".to_owned()),
            ),
            (
                "plugins_input.x",
                FieldPathError::NoFields("plugins_input".to_owned()),
            ),
        ] {
            assert_eq!(field_path(RUN, name), Err(problem), "{name}");
        }
    }
}
