//! Words that every service shares: ids, names, time, quantities, errors, events.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | one newtype per kind of object |
//! | [`limit`] | how large a value may be |
//! | [`listing`] | which part of a list is asked for |
//! | [`name`] | names that were checked once, at the edge |
//! | [`secret`] | texts that are not shown |
//! | [`time`] | [`time::Timestamp`] (milliseconds) and the [`time::Clock`] that tells it |
//! | [`quantity`] | Kubernetes quantities (`500m`, `2Gi`) |
//! | [`error`] | the one transport-free [`error::Error`] |
//! | [`event`] | [`event::CloudEvent`], what a service publishes |
//! | [`unset`] | settings that need not be given |
//! | [`json`] | values: whole numbers, how deep they may nest |
//! | [`caller`] | [`Caller`], who asks and what they may; [`Scope`] |
//!
//! No I/O here, no async, and nothing of ours below it.
#![warn(missing_docs)]

pub mod caller;
pub mod error;
pub mod event;
pub mod id;
pub mod json;
pub mod json_place;
pub mod limit;
pub mod listing;
pub mod name;
pub mod quantity;
pub mod secret;
pub mod time;
pub mod unset;

pub use caller::{Access, Caller, Principal, Scope};
pub use error::{Error, ErrorKind, FieldViolation, Result};
pub use event::CloudEvent;
pub use id::{RunId, TaskId};
pub use limit::ValueLimit;
pub use name::Namespace;
pub use secret::Secret;
pub use time::{Clock, Timestamp};
