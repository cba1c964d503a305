//! Which replica of a service drives what: every owned object has one driver at a time.
//!
//! ```text
//! use case ──► Ownership::ask ──┬─ message ─► Supervisor ─► mailbox ─► Actor (this replica)
//!                               └─ row of the requests ──► Supervisor of another replica
//! keep_alive ─► lease replica/<id> ◄── read by others: run out → take_over
//! ```
//!
//! A service brings an [`Owned`] (key, request, constant SQL of its tables), an [`Actor`] that drives
//! one object, and a [`Factory`] of those. It starts with [`Ownership::enter`], then runs
//! [`Member::keep_alive`] and [`Supervisor::run`] as tasks.
//!
//! | module | holds |
//! |---|---|
//! | [`owned`] | [`Owned`]: what a service says of the objects that it owns |
//! | [`member`] | this replica among others: its lease and heartbeat, whether others are alive |
//! | [`claim`] | the right to drive an object: columns `owner` and `fence` |
//! | [`request`] | stored requests to a driver in another replica, and their answers |
//! | [`ownership`] | takes objects, takes over those of dead replicas, gives them back |
//! | [`ask`] | from a use case to the driver, wherever it is |
//! | [`actor`] | what drives one object, and the loop around it |
//! | [`supervisor`] | starts, restarts and ends actors |
//!
//! Invariants: of several processes, one whose fence is old writes nothing; a process has at most one
//! actor with a valid claim on an object; a stored request is answered at most once, in the
//! transaction of the change that it asked for.
#![warn(missing_docs)]

pub mod actor;
pub mod ask;
pub mod claim;
pub mod member;
mod message;
pub mod owned;
pub mod ownership;
pub mod request;
pub mod supervisor;
#[cfg(test)]
mod tests;

pub use actor::{Actor, State};
pub use claim::{Claim, ClaimRow};
pub use member::Member;
pub use message::Inbox;
pub use owned::{ClaimSql, Key, Metrics, Owned, RequestSql, Text, Topics};
pub use ownership::Ownership;
pub use supervisor::{Factory, Supervisor};
