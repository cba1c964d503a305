//! Settings: defaults, then a file, then `FERROFLOW_SECTION__KEY`, then flags; later ones win.
//!
//! All faults are told at once, each with the setting and where it comes from. A setting that
//! nobody knows is a fault; a variable without `__` that names no setting is not ours to judge
//! (`FERROFLOW_CONFIG` and the like belong to other parts of the program).

#[cfg(test)]
mod tests;

use std::path::Path;

use figment::error::Kind;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The prefix of environment variables.
pub const PREFIX: &str = "FERROFLOW_";

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file is not there.
    #[error("the settings file {0} does not exist")]
    Missing(String),
    /// Values of the wrong kind, or unknown settings; each with where it comes from.
    #[error("{0}")]
    Wrong(String),
}

/// Large, so it is kept on the heap.
type Fault = Box<figment::Error>;

/// A part of the settings that has a type of its own.
pub struct ConfigPart {
    /// The section; none for what is outside all sections of others.
    section: Option<&'static str>,
    defaults: fn() -> Result<Dict, Fault>,
    check: fn(&Figment, Option<&str>) -> Result<(), Fault>,
}

impl ConfigPart {
    /// Settings that are no section of others.
    pub fn top<T: Serialize + DeserializeOwned + Default>() -> Self {
        Self {
            section: None,
            defaults: defaults::<T>,
            check: |figment, _| figment.extract::<T>().map(drop).map_err(Box::new),
        }
    }

    /// The settings below a name.
    pub fn section<T: Serialize + DeserializeOwned + Default>(name: &'static str) -> Self {
        Self {
            section: Some(name),
            defaults: defaults::<T>,
            check: |figment, section| {
                let name = section.unwrap_or_default();
                let found = figment.extract_inner::<T>(name);
                found.map(drop).map_err(Box::new)
            },
        }
    }

    fn check(&self, all: &Dict, sections: &[&str]) -> Result<(), Fault> {
        // Types refuse fields that they do not know, so each is shown its own settings only.
        let own = match self.section {
            Some(section) => only(all, |key| key == section),
            None => only(all, |key| !sections.contains(&key)),
        };
        (self.check)(&Figment::from(Serialized::defaults(own)), self.section)
    }
}

fn only(all: &Dict, wanted: impl Fn(&str) -> bool) -> Dict {
    let mut own = all.clone();
    own.retain(|key, _| wanted(key));
    own
}

fn defaults<T: Serialize + Default>() -> Result<Dict, Fault> {
    let defaults = Figment::from(Serialized::defaults(T::default()));
    defaults.extract().map_err(Box::new)
}

/// Settings of several parts, checked. There are secrets among them, so they are not shown.
#[derive(Clone)]
pub struct LoadedConfig {
    all: Dict,
    sections: Vec<&'static str>,
}

impl LoadedConfig {
    /// Those of [`ConfigPart::top`].
    ///
    /// # Errors
    /// When they were not loaded as this type.
    pub fn top<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let own = only(&self.all, |key| !self.sections.contains(&key));
        let own = Figment::from(Serialized::defaults(own));
        own.extract().map_err(wrong)
    }

    /// Those of [`ConfigPart::section`].
    ///
    /// # Errors
    /// When they were not loaded as this type.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        let all = Figment::from(Serialized::defaults(&self.all));
        all.extract_inner(name).map_err(wrong)
    }
}

/// The settings of type `T`. `flags` holds only what was given on the command line.
///
/// # Errors
/// Every fault, one a line.
pub fn load<T>(file: Option<&Path>, flags: &impl Serialize) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let parts = [ConfigPart::top::<T>()];
    load_parts(&parts, file, flags)?.top()
}

/// The settings of all parts. `flags` holds only what was given on the command line.
///
/// # Errors
/// Every fault, one a line.
pub fn load_parts(
    parts: &[ConfigPart],
    file: Option<&Path>,
    flags: &impl Serialize,
) -> Result<LoadedConfig, ConfigError> {
    load_from(parts, file, std::env::vars_os().filter_map(text), flags)
}

/// A variable that is not text is none of ours.
fn text((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn wrong(error: figment::Error) -> ConfigError {
    ConfigError::Wrong(error.to_string())
}

fn load_from(
    parts: &[ConfigPart],
    file: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
    flags: &impl Serialize,
) -> Result<LoadedConfig, ConfigError> {
    let mut known = Dict::new();
    for part in parts {
        let defaults = (part.defaults)().map_err(|fault| wrong(*fault))?;
        match part.section {
            Some(section) => {
                known.insert(section.to_owned(), Value::from(defaults));
            }
            None => known.extend(defaults),
        }
    }
    let mut figment = Figment::from(Serialized::defaults(&known));
    if let Some(file) = file {
        if !file.exists() {
            return Err(ConfigError::Missing(file.display().to_string()));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    let figment = figment
        .merge(Variables(environment(variables, &known)))
        .merge(Flags(flags));
    let all: Dict = figment.extract().map_err(wrong)?;
    let sections: Vec<_> = parts.iter().filter_map(|part| part.section).collect();
    for part in parts {
        if let Err(first) = part.check(&all, &sections) {
            let faults = faults(&figment, &all, &known, parts);
            // No setting is wrong by itself: then the error of all together is told.
            let whole = || first.to_string();
            return Err(ConfigError::Wrong(if faults.is_empty() {
                whole()
            } else {
                faults.join("\n")
            }));
        }
    }
    Ok(LoadedConfig { all, sections })
}

/// The variables that are settings, as a tree.
fn environment(variables: impl Iterator<Item = (String, String)>, known: &Dict) -> Dict {
    let mut found = Dict::new();
    for (name, text) in variables {
        let Some(name) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let name = name.to_ascii_lowercase();
        let path: Vec<&str> = name.split("__").collect();
        let default = find(known, &path);
        if path.len() == 1 && default.is_none() {
            continue;
        }
        // `8080` is a text where a text is asked for.
        let value = match default {
            Some(Value::String(..)) => Value::from(text),
            _ => text.parse().unwrap_or_else(|never| match never {}),
        };
        insert(&mut found, &path, value);
    }
    found
}

fn find<'a>(dict: &'a Dict, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = dict.get(*first)?;
    match (rest, value) {
        ([], value) => Some(value),
        (rest, Value::Dict(_, inner)) => find(inner, rest),
        _ => None,
    }
}

fn insert(dict: &mut Dict, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        dict.insert((*first).to_owned(), value);
        return;
    }
    let inner = dict
        .entry((*first).to_owned())
        .or_insert_with(|| Value::from(Dict::new()));
    if let Value::Dict(_, inner) = inner {
        insert(inner, rest, value);
    }
}

struct Variables(Dict);

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        Metadata::named("the environment").interpolater(|_, keys| {
            let name = keys.join("__").to_ascii_uppercase();
            format!("{PREFIX}{name}")
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.0.clone())]))
    }
}

struct Flags<'a, T>(&'a T);

impl<T: Serialize> Provider for Flags<'_, T> {
    fn metadata(&self) -> Metadata {
        Metadata::named("the command line").interpolater(|_, keys| keys.join("."))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(self.0).data()
    }
}

/// What is wrong, setting by setting: each is tried alone over the defaults.
fn faults(figment: &Figment, given: &Dict, known: &Dict, parts: &[ConfigPart]) -> Vec<String> {
    let sections: Vec<_> = parts.iter().filter_map(|part| part.section).collect();
    let mut paths = Vec::new();
    leaves(given, known, &mut Vec::new(), &mut paths);
    let mut faults = Vec::new();
    for path in paths {
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let Some(value) = find(given, &keys) else {
            continue;
        };
        let mut alone = known.clone();
        insert(&mut alone, &keys, value.clone());
        let name = keys.join(".");
        let origin = origin(figment, &name, &keys);
        // Outside sections, their names are known as well.
        let section_names = if keys.len() == 1 { &*sections } else { &[] };
        for error in parts
            .iter()
            .filter_map(|part| part.check(&alone, &sections).err())
        {
            let problems = error
                .into_iter()
                .map(|one| describe(&one.kind, section_names));
            faults.extend(problems.map(|problem| format!("{name} ({origin}): {problem}")));
        }
    }
    faults
}

/// What is wrong with a setting; of names that nobody knows, those that are known.
fn describe(kind: &Kind, section_names: &[&'static str]) -> String {
    match kind {
        Kind::UnknownField(_, known) => {
            let known: Vec<_> = known.iter().chain(section_names).copied().collect();
            format!("unknown field, known are {}", known.join(", "))
        }
        Kind::UnknownVariant(given, known) => {
            format!("{given:?} is none of {}", known.join(", "))
        }
        other => other.to_string(),
    }
}

/// The paths of single settings; where the defaults know no such section, the section is one.
fn leaves(given: &Dict, known: &Dict, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    for (key, value) in given {
        path.push(key.clone());
        match (value, known.get(key)) {
            (Value::Dict(_, inner), Some(Value::Dict(_, known))) => {
                leaves(inner, known, path, found);
            }
            _ => found.push(path.clone()),
        }
        path.pop();
    }
}

fn origin(figment: &Figment, name: &str, keys: &[&str]) -> String {
    let Some(metadata) = figment.find_metadata(name) else {
        return "of unknown origin".to_owned();
    };
    if let Some(source) = &metadata.source {
        return source.to_string();
    }
    let key = metadata.interpolate(&Profile::Default, keys);
    format!("{}, {key}", metadata.name)
}
