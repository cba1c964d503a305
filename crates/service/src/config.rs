//! Settings: defaults, then a file, then `FERROFLOW_SECTION__KEY`, then flags; later ones win.
//!
//! All faults are told at once, each with the setting and where it comes from. A setting that
//! nobody knows is a fault; a variable without `__` that names no setting is not ours to judge
//! (`FERROFLOW_CONFIG` and the like belong to other parts of the program).

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

/// The settings of type `T`. `flags` holds only what was given on the command line.
///
/// # Errors
/// Every fault, one a line.
pub fn load<T>(file: Option<&Path>, flags: &impl Serialize) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    load_from(file, std::env::vars_os().filter_map(text), flags)
}

/// A variable that is not text is none of ours.
fn text((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn load_from<T>(
    file: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
    flags: &impl Serialize,
) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let wrong = |error: figment::Error| ConfigError::Wrong(error.to_string());
    let defaults = Figment::from(Serialized::defaults(T::default()));
    let known: Dict = defaults.extract().map_err(wrong)?;
    let mut figment = defaults;
    if let Some(file) = file {
        if !file.exists() {
            return Err(ConfigError::Missing(file.display().to_string()));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    let figment = figment
        .merge(Variables(environment(variables, &known)))
        .merge(Flags(flags));
    figment.extract().map_err(|first| {
        let faults = faults::<T>(&figment, &known);
        // What no single setting is to blame for.
        let whole = || first.to_string();
        ConfigError::Wrong(if faults.is_empty() {
            whole()
        } else {
            faults.join("\n")
        })
    })
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
fn faults<T>(figment: &Figment, known: &Dict) -> Vec<String>
where
    T: Serialize + DeserializeOwned + Default,
{
    let Ok(given) = figment.extract::<Dict>() else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    leaves(&given, known, &mut Vec::new(), &mut paths);
    let mut faults = Vec::new();
    for path in paths {
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let Some(value) = find(&given, &keys) else {
            continue;
        };
        let mut alone = Dict::new();
        insert(&mut alone, &keys, value.clone());
        let tried = Figment::from(Serialized::defaults(T::default())).merge(Flags(&alone));
        if let Err(error) = tried.extract::<T>() {
            let name = keys.join(".");
            let origin = origin(figment, &name, &keys);
            faults.extend(
                error
                    .into_iter()
                    .map(|one| format!("{name} ({origin}): {}", told(&one.kind))),
            );
        }
    }
    faults
}

/// What is wrong with a setting; of names that nobody knows, those that are known.
fn told(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(_, known) => format!("unknown field, known are {}", known.join(", ")),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        data_dir: String,
        pipelines: Section,
    }

    #[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Section {
        parallel: u32,
        caching: bool,
        interpreter: String,
    }

    impl Default for Settings {
        fn default() -> Self {
            let pipelines = Section {
                parallel: 1,
                ..Section::default()
            };
            Self {
                data_dir: "default".to_owned(),
                pipelines,
            }
        }
    }

    fn load(
        file: &str,
        variables: &[(&str, &str)],
        flags: &serde_json::Value,
    ) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ferroflow.toml");
        fs::write(&path, file).unwrap();
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load_from(Some(&path), variables, flags).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_win_over_the_environment_that_over_the_file_and_that_over_defaults() {
        let file = "data_dir = \"file\"\n[pipelines]\nparallel = 2\n";
        let variables = [
            ("FERROFLOW_PIPELINES__PARALLEL", "3"),
            ("FERROFLOW_DATA_DIR", "env"),
        ];
        let flags = json!({"pipelines": {"parallel": 4}});

        let parallel = |settings: Settings| settings.pipelines.parallel;
        assert_eq!(parallel(load("", &[], &json!({})).unwrap()), 1);
        assert_eq!(parallel(load(file, &[], &json!({})).unwrap()), 2);
        let from_env = load(file, &variables, &json!({})).unwrap();
        assert_eq!(from_env.data_dir, "env");
        assert_eq!(parallel(from_env), 3);
        assert_eq!(parallel(load(file, &variables, &flags).unwrap()), 4);
    }

    #[test]
    fn a_variable_is_read_as_the_setting_wants_it() {
        let variables = [
            ("FERROFLOW_DATA_DIR", "2026"),
            ("FERROFLOW_PIPELINES__CACHING", "true"),
            ("FERROFLOW_PIPELINES__INTERPRETER", "3.12"),
        ];

        let settings = load("", &variables, &json!({})).unwrap();

        assert_eq!(settings.data_dir, "2026");
        assert!(settings.pipelines.caching);
        assert_eq!(settings.pipelines.interpreter, "3.12");
    }

    #[test]
    fn variables_of_others_are_let_be() {
        let variables = [("FERROFLOW_BIN", "x"), ("PATH", "y"), ("FERRO__X", "z")];

        assert_eq!(
            load("", &variables, &json!({})).unwrap(),
            Settings::default()
        );
    }

    #[test]
    fn every_fault_is_told_with_its_origin() {
        let file = "data_dri = \"x\"\n[pipelines]\nparallel = \"many\"\n[piplines]\na = 1\n";
        let variables = [
            ("FERROFLOW_PIPELINES__CACHING", "perhaps"),
            ("FERROFLOW_PIPELINES__CASHING", "true"),
        ];

        let told = load(file, &variables, &json!({"data_dir": 5})).unwrap_err();

        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 6, "{told}");
        let line = |name: &str| {
            let found = lines.iter().find(|line| line.starts_with(name));
            found.unwrap_or_else(|| panic!("{name} in {told}"))
        };
        assert!(line("data_dri (").contains("ferroflow.toml"));
        assert!(line("piplines (").ends_with("unknown field, known are data_dir, pipelines"));
        assert!(line("pipelines.parallel (").contains("ferroflow.toml"));
        assert!(line("pipelines.caching (").contains("FERROFLOW_PIPELINES__CACHING"));
        assert!(line("pipelines.cashing (").contains("FERROFLOW_PIPELINES__CASHING"));
        assert!(line("data_dir (").contains("the command line"));
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let nowhere = Path::new("/nowhere/ferroflow.toml");

        let missing = load_from::<Settings>(Some(nowhere), std::iter::empty(), &json!({}));

        assert!(
            missing
                .unwrap_err()
                .to_string()
                .contains(&nowhere.display().to_string())
        );
    }
}
