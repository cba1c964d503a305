//! Where settings come from, and how faults are reported.

use std::fs;

use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Top {
    data_dir: String,
}

impl Default for Top {
    fn default() -> Self {
        let data_dir = "default".to_owned();
        Self { data_dir }
    }
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Section {
    parallel: u32,
    caching: bool,
    interpreter: String,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            parallel: 1,
            caching: false,
            interpreter: String::new(),
        }
    }
}

/// Two parts, as the platform and one service have them.
#[derive(Debug, PartialEq)]
struct Settings {
    data_dir: String,
    pipelines: Section,
}

fn parts() -> [ConfigPart; 2] {
    [
        ConfigPart::top::<Top>(),
        ConfigPart::section::<Section>("pipelines"),
    ]
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
    let loaded = load_from(&parts(), Some(&path), variables, flags);
    let loaded = loaded.map_err(|error| error.to_string())?;
    let top: Top = loaded.top().unwrap();
    Ok(Settings {
        data_dir: top.data_dir,
        pipelines: loaded.section("pipelines").unwrap(),
    })
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

    let settings = load("", &variables, &json!({})).unwrap();

    let defaults = Settings {
        data_dir: Top::default().data_dir,
        pipelines: Section::default(),
    };
    assert_eq!(settings, defaults);
}

#[test]
fn every_fault_is_told_with_its_origin() {
    let file = "data_dri = \"x\"\n[pipelines]\nparallel = \"many\"\n[piplines]\na = 1\n";
    let variables = [
        ("FERROFLOW_PIPELINES__CACHING", "perhaps"),
        ("FERROFLOW_PIPELINES__CASHING", "true"),
    ];

    let error = load(file, &variables, &json!({"data_dir": 5})).unwrap_err();

    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 6, "{error}");
    let line = |name: &str| {
        let found = lines.iter().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("{name} in {error}"))
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

    let loaded = load_from(&parts(), Some(nowhere), std::iter::empty(), &json!({}));
    let missing = loaded.map(drop);

    assert!(
        missing
            .unwrap_err()
            .to_string()
            .contains(&nowhere.display().to_string())
    );
}

#[test]
fn a_section_that_is_no_table_is_told_once() {
    let error = load("pipelines = 3\n", &[], &json!({})).unwrap_err();

    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.starts_with("pipelines (") && error.contains("ferroflow.toml"),
        "{error}"
    );
}

#[test]
fn settings_of_one_type_need_no_parts() {
    let settings: Top = super::load(None, &json!({"data_dir": "given"})).unwrap();
    assert_eq!(settings.data_dir, "given");

    let error = super::load::<Top>(None, &json!({"pipelines": {}})).unwrap_err();
    assert!(error.to_string().contains("known are data_dir"), "{error}");
}

/// Settings of which none need be given.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Unset {
    #[serde(with = "ferroflow_types::unset::text")]
    user: Option<String>,
    #[serde(with = "ferroflow_types::unset::count")]
    size: Option<u32>,
    #[serde(with = "ferroflow_types::unset::id")]
    group: Option<i64>,
}

#[test]
fn a_variable_may_give_a_setting_that_has_no_default_or_take_it_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ferroflow.toml");
    fs::write(&path, "user = \"1:2\"\nsize = 3\ngroup = 4\n").unwrap();
    let read = |user: &str, size: &str, group: &str| {
        let variables = [("USER", user), ("SIZE", size), ("GROUP", group)];
        let variables =
            variables.map(|(name, value)| (format!("{PREFIX}{name}"), value.to_owned()));
        let parts = [ConfigPart::top::<Unset>()];
        let loaded = load_from(&parts, Some(&path), variables.into_iter(), &json!({})).unwrap();
        loaded.top::<Unset>().unwrap()
    };

    let given = Unset {
        user: Some("1000".to_owned()),
        size: Some(8),
        group: Some(0),
    };
    assert_eq!(read("1000", "8", "0"), given);
    assert_eq!(read("", "0", "-1"), Unset::default());
}
