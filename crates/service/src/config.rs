//! Settings: defaults, then a file, then `FERROFLOW_SECTION__KEY`, then flags; later ones win.

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
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
pub fn load<T>(file: Option<&Path>, flags: &impl Serialize) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let mut figment = Figment::from(Serialized::defaults(T::default()));
    if let Some(file) = file {
        if !file.exists() {
            return Err(ConfigError::Missing(file.display().to_string()));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    // Variables of other parts of the program carry the prefix as well.
    let known = figment.clone();
    let env = Env::prefixed(PREFIX).split("__").filter(move |name| {
        let section = name.as_str().split("__").next().unwrap_or_default();
        known.find_value(section).is_ok() || name.as_str().contains("__")
    });
    figment
        .merge(env)
        .merge(Serialized::defaults(flags))
        .extract()
        .map_err(|errors| {
            let all: Vec<_> = errors.into_iter().map(|error| error.to_string()).collect();
            ConfigError::Wrong(all.join("\n"))
        })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        listen: String,
        pipelines: Section,
    }

    #[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Section {
        parallel: u32,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self {
                listen: "a".to_owned(),
                pipelines: Section { parallel: 1 },
            }
        }
    }

    #[test]
    fn files_win_over_defaults_and_flags_over_files() {
        let folder = std::env::temp_dir().join(format!("ferroflow-config-{}", std::process::id()));
        std::fs::write(&folder, "listen = \"b\"\n[pipelines]\nparallel = 7\n").unwrap();

        let flags = serde_json::json!({"listen": "c"});
        let settings: Settings = load(Some(&folder), &flags).unwrap();
        assert_eq!(settings.listen, "c");
        assert_eq!(settings.pipelines.parallel, 7);

        std::fs::write(&folder, "lisen = \"b\"\n[pipelines]\nparallel = \"x\"\n").unwrap();
        let error = load::<Settings>(Some(&folder), &serde_json::json!({})).unwrap_err();
        assert!(error.to_string().contains("lisen") || error.to_string().contains("parallel"));
        std::fs::remove_file(&folder).unwrap();
    }
}
