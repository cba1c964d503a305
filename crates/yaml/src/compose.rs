//! Events of the parser to values.

use std::collections::HashMap;

use ferroflow_types::json::nesting;
use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

use crate::{DEPTH_MAX, YamlError, resolve};

/// Bytes that anchors and aliases of a text may take beside what is written, so that a few lines
/// cannot become gigabytes: each anchor keeps a copy of its value, and each alias adds one.
const COPIES_MAX: usize = 32 * 1024 * 1024;

const YAML_TAGS: &str = "tag:yaml.org,2002:";

/// Every document of the text.
pub(crate) fn compose(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut composer = Composer::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| YamlError(error.to_string()))?;
        composer.at = span.start;
        composer
            .handle(event)
            .map_err(|problem| composer.error(&problem))?;
    }
    Ok(composer.documents)
}

/// A collection that has not ended.
enum OpenCollection {
    List(Vec<Value>, usize),
    Object {
        fields: Map<String, Value>,
        /// What `<<` brings, unless the object has it itself.
        merged: Map<String, Value>,
        key: Option<Key>,
        anchor: usize,
    },
}

enum Key {
    Text(String),
    Merge,
}

#[derive(Default)]
struct Composer {
    documents: Vec<Value>,
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, Value>,
    copies: CopyBudget,
    at: Marker,
}

impl Composer {
    fn error(&self, problem: &str) -> YamlError {
        let (line, column) = (self.at.line(), self.at.col() + 1);
        YamlError(format!("line {line} column {column}: {problem}"))
    }

    fn handle(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            // An alias cannot refer to another document.
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                if self.awaits_key() {
                    // A key is the text that is written, whatever it would be as a value.
                    let merge = plain && tag.is_none() && text == "<<";
                    if anchor != 0 {
                        let value = Value::String(text.to_string());
                        self.copies.count(&value)?;
                        self.anchors.insert(anchor, value);
                    }
                    return self.set_key(if merge {
                        Key::Merge
                    } else {
                        Key::Text(text.into_owned())
                    });
                }
                self.push_value(scalar(&text, plain, tag.as_deref())?, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin_collection("seq", tag.as_deref())?;
                self.open.push(OpenCollection::List(Vec::new(), anchor));
            }
            Event::MappingStart(_, anchor, tag) => {
                self.begin_collection("map", tag.as_deref())?;
                self.open.push(OpenCollection::Object {
                    fields: Map::new(),
                    merged: Map::new(),
                    key: None,
                    anchor,
                });
            }
            Event::SequenceEnd | Event::MappingEnd => self.end_collection()?,
            Event::Alias(id) => self.alias(id)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether the innermost collection is an object that waits for a key.
    fn awaits_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(OpenCollection::Object { key: None, .. })
        )
    }

    fn set_key(&mut self, found: Key) -> Result<(), String> {
        if let Some(OpenCollection::Object { fields, key, .. }) = self.open.last_mut() {
            match &found {
                Key::Text(name) if fields.contains_key(name) => {
                    return Err(format!("the key {name:?} is given twice"));
                }
                _ => *key = Some(found),
            }
        }
        Ok(())
    }

    fn begin_collection(&mut self, kind: &str, tag: Option<&Tag>) -> Result<(), String> {
        if self.awaits_key() {
            return Err("a key must be a text".to_owned());
        }
        if self.open.len() == DEPTH_MAX {
            return Err(too_deep());
        }
        match tag {
            Some(tag) if tag.original() != "!" && core_tag(tag) != Some(kind) => {
                Err(unknown_tag(tag))
            }
            _ => Ok(()),
        }
    }

    fn end_collection(&mut self) -> Result<(), String> {
        match self.open.pop() {
            Some(OpenCollection::List(items, anchor)) => {
                self.push_value(Value::Array(items), anchor)
            }
            Some(OpenCollection::Object {
                fields,
                mut merged,
                anchor,
                ..
            }) => {
                // The object's own fields replace what `<<` brings, wherever it stands.
                merged.extend(fields);
                self.push_value(Value::Object(merged), anchor)
            }
            None => Ok(()),
        }
    }

    fn alias(&mut self, id: usize) -> Result<(), String> {
        let known = self.anchors.get(&id);
        let known = known.ok_or("the alias refers to something that contains itself")?;
        // Counted before it is copied.
        self.copies.count(known)?;
        let value = known.clone();
        if self.awaits_key() {
            return match value {
                Value::String(text) => self.set_key(Key::Text(text)),
                _ => Err("a key must be a text".to_owned()),
            };
        }
        if self.open.len() + nesting(&value) > DEPTH_MAX {
            return Err(too_deep());
        }
        self.push_value(value, 0)
    }

    /// A value is complete.
    fn push_value(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.copies.count(&value)?;
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.documents.push(value),
            Some(OpenCollection::List(items, _)) => items.push(value),
            Some(OpenCollection::Object {
                fields,
                merged,
                key,
                ..
            }) => match key.take() {
                Some(Key::Merge) => merge(merged, value)?,
                Some(Key::Text(name)) => drop(fields.insert(name, value)),
                None => return Err("a value has no key".to_owned()),
            },
        }
        Ok(())
    }
}

/// Adds what is not there yet: of several, the first wins.
fn merge(merged: &mut Map<String, Value>, value: Value) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                merged.entry(name).or_insert(value);
            }
            Ok(())
        }
        Value::Array(several) => several.into_iter().try_for_each(|one| match one {
            Value::Object(_) => merge(merged, one),
            _ => Err("<< takes an object or a list of objects".to_owned()),
        }),
        _ => Err("<< takes an object or a list of objects".to_owned()),
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, String> {
    match tag {
        None if plain => resolve::plain(text),
        None => Ok(Value::String(text.to_owned())),
        // To PyYAML this is a text without quotes, and its dumper in C writes it.
        Some(tag) if tag.original() == "!" => resolve::plain(text),
        Some(tag) => resolve::tagged(core_tag(tag).ok_or_else(|| unknown_tag(tag))?, text),
    }
}

/// A tag of YAML's own, without its prefix.
fn core_tag(tag: &Tag) -> Option<&str> {
    (tag.handle() == YAML_TAGS).then(|| tag.suffix())
}

fn unknown_tag(tag: &Tag) -> String {
    format!(
        "the tag {} has no meaning in JSON: leave it out",
        tag.original()
    )
}

fn too_deep() -> String {
    format!("it is nested deeper than {DEPTH_MAX} objects and lists")
}

/// Bytes of the copies that anchors and aliases made.
#[derive(Default)]
struct CopyBudget(usize);

impl CopyBudget {
    /// Counts one more; refuses it when they would be too many.
    fn count(&mut self, value: &Value) -> Result<(), String> {
        self.0 = self.0.saturating_add(memory_size(value));
        if self.0 > COPIES_MAX {
            return Err(format!(
                "its anchors and aliases stand for more than {COPIES_MAX} bytes"
            ));
        }
        Ok(())
    }
}

/// About the bytes of a value in memory: what has no text of its own takes room as well.
fn memory_size(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(memory_size).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| size_of::<String>() + name.len() + memory_size(value))
            .sum(),
        _ => 0,
    };
    size_of::<Value>() + inside
}
