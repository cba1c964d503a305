//! Which part of a list is asked for: filter, order, page.

use serde::{Deserialize, Serialize};

/// What is compared with what, by keys of the API and without SQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predicate {
    /// The key as the client named it.
    pub key: String,
    /// How it is compared.
    pub operation: Operation,
    /// With what; several for [`Operation::In`].
    pub values: Vec<Operand>,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// The same.
    Equals,
    /// Another one.
    NotEquals,
    /// More than.
    Greater,
    /// At least.
    GreaterEquals,
    /// Less than.
    Less,
    /// At most.
    LessEquals,
    /// One of several.
    In,
    /// It contains the text.
    IsSubstring,
}

/// A value to compare with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Operand {
    /// A number, or a time in seconds since the epoch.
    Number(i64),
    /// A text.
    Text(String),
}

/// Which way a list runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Small ones first.
    Ascending,
    /// Large ones first.
    Descending,
}

/// A request for a part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// All must hold.
    pub predicates: Vec<Predicate>,
    /// The key to order by, as the client named it.
    pub sort_key: String,
    /// Which way.
    pub direction: Direction,
    /// Entries on a page.
    pub page_size: i64,
    /// Where the page begins.
    pub start: Option<PageStart>,
}

/// Where a page begins, and in which list; what a page token holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageStart {
    /// The order that the token belongs to.
    pub sort_key: String,
    /// The direction that it belongs to.
    pub direction: Direction,
    /// The filter that it belongs to.
    pub predicates: Vec<Predicate>,
    /// The sorted column of the page's first entry.
    pub value: Operand,
    /// When that entry was made, in lists by a text: entries of one text are in the order of time.
    /// Tokens of the release before have none, and are refused for such lists.
    #[serde(default)]
    pub created_at: Option<i64>,
    /// Its id.
    pub id: String,
    /// How many matched when the first page was read, so that no later page counts them again. Tokens
    /// of the release before have none.
    #[serde(default)]
    pub total: Option<i64>,
    /// Whose entries are listed, as columns and values. Tokens of the release before do not say.
    #[serde(default)]
    pub scope: Option<Vec<(String, String)>>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// All that matched when the first page was read, on whatever page.
    pub total: i64,
    /// Where the next page begins.
    pub next: Option<String>,
}
