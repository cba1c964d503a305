//! One newtype per kind of object, so that a run's id cannot be passed where a task's is meant.
//!
//! All are UUIDs, printed in lower case with hyphens. New ones are made with the service's
//! [`IdSource`]. A domain declares its own kinds with [`id!`](crate::id!).

use uuid::Uuid;

/// For the code that [`id!`](crate::id!) writes, in crates that need not depend on these two.
#[doc(hidden)]
pub mod of_macro {
    pub use serde::{Deserialize, Deserializer, Serialize, Serializer};
    pub use uuid::Uuid;
}

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

impl InvalidId {
    /// That `text` is not the id of a `kind`, for example `pipeline version`.
    pub fn new(kind: &'static str, text: &str) -> Self {
        let text = text.to_owned();
        Self { kind, text }
    }
}

/// Declares the id of one kind of object: a UUID with its own type, and the word for it in errors.
///
/// ```
/// ferroflow_types::id!(
///     /// One attempt to find better parameters.
///     TrialId, "trial"
/// );
/// let error = "7".parse::<TrialId>().unwrap_err();
/// assert_eq!(error.to_string(), "\"7\" is not a trial id (a UUID)");
/// ```
#[macro_export]
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($crate::id::of_macro::Uuid);

        impl $name {
            /// Wraps a UUID that was made for this kind of object.
            pub const fn new(uuid: $crate::id::of_macro::Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself, for deriving further ids.
            pub const fn uuid(self) -> $crate::id::of_macro::Uuid {
                self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self.0.as_hyphenated(), f)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.as_hyphenated())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::id::InvalidId;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                let read = $crate::id::of_macro::Uuid::try_parse(text);
                read.map(Self).map_err(|_| $crate::id::InvalidId::new($kind, text))
            }
        }

        impl $crate::id::of_macro::Serialize for $name {
            fn serialize<S: $crate::id::of_macro::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                $crate::id::of_macro::Serialize::serialize(&self.0, serializer)
            }
        }

        impl<'de> $crate::id::of_macro::Deserialize<'de> for $name {
            fn deserialize<D: $crate::id::of_macro::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                $crate::id::of_macro::Deserialize::deserialize(deserializer).map(Self)
            }
        }
    };
}

id!(
    /// One execution of a pipeline version.
    RunId, "run"
);
id!(
    /// A task of a run, derived from the run and the task's path.
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
        let error = "nope".parse::<EventId>().unwrap_err();
        assert_eq!(error.to_string(), "\"nope\" is not an event id (a UUID)");
    }
}
