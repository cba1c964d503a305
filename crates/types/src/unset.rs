//! Settings that need not be given: an `Option` in code, in files, variables and flags a value that
//! stands for none.
//!
//! Helpers for `#[serde(with = "…")]`. They write `None` as that value too: variables have no
//! types, so they are read by the kind of the default, and a default that is nothing would make a
//! number of `FERROFLOW_DOCKER__USER=1000`.

/// Texts, paths and secrets: the empty text is none.
pub mod text {
    use serde::{Deserialize as _, Deserializer, Serialize, Serializer};

    /// Writes the text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Serialize, S: Serializer>(
        setting: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match setting {
            Some(given) => given.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    /// Reads the text.
    ///
    /// # Errors
    /// When it is no text.
    pub fn deserialize<'de, T: From<String>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Some(text).filter(|text| !text.is_empty()).map(T::from))
    }
}

/// Counts and limits: 0 is none.
pub mod count {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the number.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Serialize + Default + Copy, S: Serializer>(
        setting: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        setting.unwrap_or_default().serialize(serializer)
    }

    /// Reads the number.
    ///
    /// # Errors
    /// When it is no number of this kind.
    pub fn deserialize<'de, T: Deserialize<'de> + Default + PartialEq, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let number = T::deserialize(deserializer)?;
        Ok(Some(number).filter(|number| *number != T::default()))
    }
}

/// Ids of users and groups, of which 0 is root's: negative ones are none.
pub mod id {
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes the id.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        setting: &Option<i64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(setting.unwrap_or(-1))
    }

    /// Reads the id.
    ///
    /// # Errors
    /// When it is no whole number.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<i64>, D::Error> {
        let id = i64::deserialize(deserializer)?;
        Ok(Some(id).filter(|id| *id >= 0))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use crate::Secret;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        #[serde(with = "super::text")]
        name: Option<String>,
        #[serde(with = "super::text")]
        key: Option<Secret>,
        #[serde(with = "super::count")]
        size: Option<u16>,
        #[serde(with = "super::id")]
        user: Option<i64>,
    }

    #[test]
    fn what_stood_for_none_is_none_and_is_written_as_such() {
        let none = json!({"name": "", "key": "", "size": 0, "user": -1});

        assert_eq!(serde_json::to_value(Settings::default()).unwrap(), none);
        for given in [none, json!({}), json!({"user": -7})] {
            let read: Settings = serde_json::from_value(given).unwrap();
            assert_eq!(read, Settings::default());
        }
    }

    #[test]
    fn what_is_given_is_read_and_written_as_it_is() {
        let given = json!({"name": " ", "key": "x", "size": 1, "user": 0});

        let read: Settings = serde_json::from_value(given.clone()).unwrap();

        assert_eq!(read.name.as_deref(), Some(" "));
        assert_eq!(read.key.as_ref().map(Secret::expose), Some("x"));
        assert_eq!((read.size, read.user), (Some(1), Some(0)));
        assert_eq!(serde_json::to_value(&read).unwrap(), given);
    }

    #[test]
    fn other_kinds_are_refused() {
        for wrong in [
            json!({"name": 1}),
            json!({"size": -1}),
            json!({"size": ""}),
            json!({"user": "root"}),
        ] {
            let error = serde_json::from_value::<Settings>(wrong.clone()).unwrap_err();
            assert!(error.to_string().contains("invalid"), "{wrong}: {error}");
        }
    }
}
