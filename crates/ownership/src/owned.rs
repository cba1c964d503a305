//! What a service says of the objects that its replicas own: their key, what their drivers are asked,
//! and the constant SQL of the tables that they are in.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::str::FromStr;

use ferroflow_db::signal::Topic;

/// What tells one object from another; stored as its text.
pub trait Key:
    Copy + Eq + Hash + Debug + Display + FromStr<Err: Display> + Send + Sync + 'static
{
}

impl<T> Key for T where
    T: Copy + Eq + Hash + Debug + Display + FromStr<Err: Display> + Send + Sync + 'static
{
}

/// What is stored as text.
pub trait Text: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The text.
    fn to_text(&self) -> String;

    /// What has this text.
    fn from_text(text: &str) -> Option<Self>
    where
        Self: Sized;
}

/// A kind of object of which each is driven by one replica at a time.
///
/// In logs an object is the field `key`, several are `keys`, and how many is `count`: `tracing` wants
/// names of fields that are constants of the call and do not depend on the kind. The kind is in the
/// message, as [`Owned::ONE`] or [`Owned::MANY`].
pub trait Owned: Debug + Send + Sync + 'static {
    /// What tells one from another.
    type Key: Key;
    /// What a driver can be asked.
    type Request: Text;
    /// Why a driver does not do it; no text may be [`crate::request::DONE`].
    type Refusal: Text;

    /// One of them, in logs and errors: `run`.
    const ONE: &'static str;
    /// Several of them: `runs`.
    const MANY: &'static str;
    /// What replicas tell each other.
    const TOPICS: Topics;
    /// What is shown to those who watch.
    const METRICS: Metrics;
    /// Statements on the table of the objects.
    const CLAIMS: ClaimSql;
    /// Statements on the table of the requests.
    const REQUESTS: RequestSql;

    /// The refusal of a request about an object that does not exist.
    fn missing() -> Self::Refusal;
}

/// Signals between replicas.
#[derive(Debug, Clone, Copy)]
pub struct Topics {
    /// There are objects that nobody drives.
    pub unowned: Topic,
    /// A request was stored.
    pub requests: Topic,
    /// A stored request was answered.
    pub answers: Topic,
}

/// Names of metrics.
#[derive(Debug, Clone, Copy)]
pub struct Metrics {
    /// Gauge: objects that have an actor here.
    pub driven: &'static str,
    /// Gauge: objects that are claimed here and wait for an actor.
    pub waiting: &'static str,
    /// Counter: objects taken from replicas that were gone.
    pub taken_over: &'static str,
}

/// Statements on the table of the objects, which has the columns `owner` (`TEXT`, the id of the
/// replica that drives the object, empty for none) and `fence` (`BIGINT`, greater with every change
/// of the owner). Whatever a driver writes must have `fence = …` in its condition.
#[derive(Debug, Clone, Copy)]
pub struct ClaimSql {
    /// The table, for messages.
    pub table: &'static str,
    /// `$1` a key. Columns `id` (the key), `owner`, `fence`.
    pub find: &'static str,
    /// `$1` an owner, `$2` a limit. The same columns of those that need a driver, in the order in
    /// which they get one.
    pub of_owner: &'static str,
    /// `$1` the new owner, `$2` a key, `$3` the former owner, `$4` the former fence. Sets the owner and
    /// raises the fence by one.
    pub claim: &'static str,
    /// `$1` an owner. Leaves what needs a driver to anybody, and raises the fences.
    pub release: &'static str,
    /// The same whoever the owner is.
    pub release_all: &'static str,
}

/// Statements on the table of the requests.
#[derive(Debug, Clone, Copy)]
pub struct RequestSql {
    /// The table, for messages.
    pub table: &'static str,
    /// Its column for the key of the object.
    pub key: &'static str,
    /// `$1` the id of the request, `$2` a key, `$3` the request, `$4` the time.
    pub insert: &'static str,
    /// `$1` a limit. Columns `id`, the key, `request`, and `owner` and `fence` of the object, which are
    /// `NULL` if there is no such object; those without an answer, oldest first.
    pub pending: &'static str,
    /// `$1` an id, `$2` the time, `$3` the answer. Answers if nobody has.
    pub answer: &'static str,
    /// `$1` an id. Column `answer`, once it is answered.
    pub answer_of: &'static str,
    /// `$1` an id. Deletes it if it is answered.
    pub remove_answered: &'static str,
    /// `$1` an id. Deletes it if it is not answered.
    pub withdraw: &'static str,
    /// `$1` a time. Deletes what is older.
    pub forget: &'static str,
}
