//! Pipelines, their versions, and experiments, as they are stored and shown.

use std::collections::BTreeMap;

use ferroflow_types::{FieldViolation, Namespace, Timestamp};

use crate::domain::id::{ExperimentId, PipelineId, PipelineVersionId};
use crate::domain::run::StorageState;

/// Labels that users put on pipelines and versions.
pub(crate) type Tags = BTreeMap<String, String>;

/// A named pipeline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// The tenant.
    pub namespace: Namespace,
    /// Unique in the namespace.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// Its labels.
    pub tags: Tags,
    /// When it was created.
    pub created_at: Timestamp,
    /// How many events were told of it.
    pub event_sequence: i64,
    /// The subject of who made it; empty for the platform itself, and where it was not kept.
    pub created_by: String,
}

/// One immutable upload of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Version {
    /// Its id.
    pub id: PipelineVersionId,
    /// The pipeline.
    pub pipeline: PipelineId,
    /// Unique in the pipeline.
    pub name: String,
    /// For people.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// Where its source is.
    pub code_source_url: String,
    /// Where it was fetched from, empty for an upload.
    pub package_url: String,
    /// Its labels.
    pub tags: Tags,
    /// The digest of its specification.
    pub spec_digest: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// How many events were told of it.
    pub event_sequence: i64,
    /// The subject of who made it; empty for the platform itself, and where it was not kept.
    pub created_by: String,
}

/// A folder of runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Experiment {
    /// Its id.
    pub id: ExperimentId,
    /// The tenant.
    pub namespace: Namespace,
    /// Unique in the namespace.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// Current or put away.
    pub storage: StorageState,
    /// Whether runs without an experiment go here.
    pub is_default: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its latest run was created, the epoch before the first.
    pub last_run_created_at: Timestamp,
    /// How many events were told of it.
    pub event_sequence: i64,
    /// The subject of who made it; empty for the platform itself, and where it was not kept.
    pub created_by: String,
}

/// Bytes of names, as KFP limits them.
pub(crate) const EXPERIMENT_NAME_MAX: usize = 128;
pub(crate) const PIPELINE_NAME_MAX: usize = 128;
pub(crate) const VERSION_NAME_MAX: usize = 127;
/// Bytes; every event of a run carries it.
pub(crate) const RUN_NAME_MAX: usize = 1024;

// Upstream's limits: how many tags, and characters of a key and of a value.
const TAGS_MAX: usize = 20;
const TAG_MAX: usize = 63;

/// Checks a name's presence and length.
pub(crate) fn check_name(
    what: &str,
    field: &str,
    name: &str,
    max: usize,
    faults: &mut Vec<FieldViolation>,
) {
    if name.is_empty() {
        faults.push(FieldViolation::new(
            field,
            format!("{what} cannot be empty"),
        ));
    } else if name.trim().is_empty() {
        faults.push(FieldViolation::new(
            field,
            format!("{what} cannot consist of blanks only"),
        ));
    } else if name.len() > max {
        faults.push(FieldViolation::new(
            field,
            format!("{what} length cannot exceed {max}"),
        ));
    }
}

/// Checks a display name, which may be left out.
pub(crate) fn check_display_name(name: &str, faults: &mut Vec<FieldViolation>) {
    if !name.is_empty() && name.trim().is_empty() {
        let problem = "the display name cannot consist of blanks only";
        faults.push(FieldViolation::new("display_name", problem));
    }
}

/// Checks labels: how many, how long, and that their keys can be named in filters.
pub(crate) fn check_tags(tags: &Tags, faults: &mut Vec<FieldViolation>) {
    if tags.len() > TAGS_MAX {
        faults.push(FieldViolation::new(
            "tags",
            format!("at most {TAGS_MAX} tags are allowed"),
        ));
    }
    for (key, value) in tags {
        let field = format!("tags.{key}");
        if key.trim().is_empty() || key.contains('.') || key.chars().count() > TAG_MAX {
            let problem =
                format!("a tag's key has 1 to {TAG_MAX} characters, not blanks only, and no '.'");
            faults.push(FieldViolation::new(&field, problem));
        }
        if value.chars().count() > TAG_MAX {
            let problem = format!("a tag's value has at most {TAG_MAX} characters");
            faults.push(FieldViolation::new(&field, problem));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(check: impl FnOnce(&mut Vec<FieldViolation>)) -> usize {
        let mut faults = Vec::new();
        check(&mut faults);
        faults.len()
    }

    #[test]
    fn names_must_not_be_blank() {
        let name = |name: &str| problems(|faults| check_name("Name", "name", name, 5, faults));
        assert_eq!([name("a"), name(" a b "), name("ü")], [0, 0, 0]);
        for bad in ["", " ", "\t\n", "\u{a0}\u{2003}", "abcdef"] {
            assert_eq!(name(bad), 1, "{bad:?}");
        }
        let display = |name: &str| problems(|faults| check_display_name(name, faults));
        assert_eq!([display(""), display("a"), display("  ")], [0, 0, 1]);
    }

    #[test]
    fn keys_of_tags_can_be_named_in_filters() {
        for (key, expected) in [("team", 0), ("", 1), (" ", 1), ("a.b", 1)] {
            let tags = Tags::from([(key.to_owned(), "v".to_owned())]);
            assert_eq!(
                problems(|faults| check_tags(&tags, faults)),
                expected,
                "{key:?}"
            );
        }
    }
}
