//! One newtype per kind of object, so that a run's id cannot be passed where a task's is meant.
//!
//! All are UUIDs, printed in lower case with hyphens. New ones are made with the service's
//! [`IdSource`]; ids that must be the same again after a crash are derived ([`TaskId::derive`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not a UUID where an id was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {} {kind} id (a UUID)", article(.kind))]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

/// The article before a word.
fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o']) {
        "an"
    } else {
        "a"
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that was made for this kind of object.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself, for deriving further ids.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| InvalidId { kind: $kind, text: text.to_owned() })
            }
        }
    };
}

id!(
    /// A named pipeline definition.
    PipelineId, "pipeline"
);
id!(
    /// One immutable upload of a pipeline.
    PipelineVersionId, "pipeline version"
);
id!(
    /// A folder of runs (not Katib's experiment).
    ExperimentId, "experiment"
);
id!(
    /// One execution of a pipeline version.
    RunId, "run"
);
id!(
    /// A schedule that creates runs.
    RecurringRunId, "recurring run"
);
id!(
    /// A node of a run, derived from the run and the node's path.
    TaskId, "task"
);
id!(
    /// A CloudEvent.
    EventId, "event"
);

impl TaskId {
    /// The id of the task at `path` (task keys and iteration numbers, outermost first) of `run`.
    /// The same run and path always give the same id, so work can be ensured twice without harm.
    pub fn derive(run: RunId, path: &str) -> Self {
        Self(Uuid::new_v5(&run.uuid(), path.as_bytes()))
    }
}

/// Makes ids; a test gives a counting one.
pub trait IdSource: Send + Sync {
    /// A UUID that no one else has.
    fn uuid(&self) -> Uuid;
}

/// Random ids (UUID version 4 as the ecosystem's clients expect).
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_task_ids_depend_on_run_and_path_only() {
        let run = RunId::new(Uuid::from_u128(7));
        let other = RunId::new(Uuid::from_u128(8));

        assert_eq!(TaskId::derive(run, "root.a"), TaskId::derive(run, "root.a"));
        assert_ne!(TaskId::derive(run, "root.a"), TaskId::derive(run, "root.b"));
        assert_ne!(
            TaskId::derive(run, "root.a"),
            TaskId::derive(other, "root.a")
        );
    }

    #[test]
    fn text_that_is_no_uuid_is_refused_with_its_kind() {
        let error = "nope".parse::<RunId>().unwrap_err();

        assert_eq!(error.to_string(), "\"nope\" is not a run id (a UUID)");
        let error = "nope".parse::<ExperimentId>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"nope\" is not an experiment id (a UUID)"
        );
    }
}
