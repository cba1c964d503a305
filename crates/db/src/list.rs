//! Lists of any table: filter, order and keyset pages, in the one place where SQL is put together.
//!
//! Text in the statements comes from the static [`Table`] only; everything that a client says is a
//! bound value. Pages begin at a key (never at an offset), so any page costs the same.

mod filter;
mod order;
mod plan;
mod substring;

use std::fmt::Display;

use ferroflow_types::listing::{Listing, Operand, Page, PageStart};
use ferroflow_types::{Error, FieldViolation, Namespace};
use order::Order;
use plan::{Plan, Query};
use sqlx::Row as _;
use sqlx::any::AnyRow;
pub use substring::TextIndex;

use crate::{DbError, Read, page};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Text.
    Text,
    /// Text or NULL. Clients filter by it, and cannot sort by it: databases disagree where NULL comes, and
    /// no page could begin there.
    Optional,
    /// Milliseconds since the epoch; clients speak of seconds.
    Time,
}

/// A table that can be listed. It has the columns `id` and, when a key is a text, `created_at`.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The columns that a row is decoded from, those of the keys and `id` among them.
    pub columns: &'static str,
    /// Keys that clients may filter and order by, with their columns.
    pub keys: &'static [(&'static str, &'static str, ColumnType)],
    /// Whether its rows have tags, in a table `tags` (`owner_id`, `key`, `value`).
    pub tagged: bool,
    /// The index that finds its rows by a part of a text, if it has one.
    pub text_index: Option<TextIndex>,
}

/// Conditions that are not the client's. There is always one that says whose rows may be seen.
#[derive(Debug, Clone)]
pub struct ScopeFilter(Vec<(&'static str, String)>);

impl ScopeFilter {
    /// Rows of a namespace.
    pub fn namespace(namespace: &Namespace) -> Self {
        Self(vec![("namespace", namespace.to_string())])
    }

    /// What belongs to something that was found, under the caller's scope, in `column`.
    pub fn parent(column: &'static str, id: impl Display) -> Self {
        Self(vec![(column, id.to_string())])
    }

    /// As page tokens have it.
    fn to_token(&self) -> Vec<(String, String)> {
        let pair = |(column, value): &(&str, String)| ((*column).to_owned(), value.clone());
        self.0.iter().map(pair).collect()
    }

    /// Of these, those with this value only.
    #[must_use]
    pub fn and(mut self, column: &'static str, value: impl Display) -> Self {
        self.0.push((column, value.to_string()));
        self
    }
}

/// One page of a table.
///
/// # Errors
/// Invalid when a key is not known, an operation does not fit it, or the page token is of a list with
/// another scope.
pub async fn list<T>(
    tx: &mut impl Read,
    table: &Table,
    scope: &ScopeFilter,
    listing: &Listing,
    decode: impl Fn(&AnyRow) -> Result<T, DbError>,
) -> Result<Page<T>, Error> {
    check_scope(scope, listing)?;
    let plan = Plan::of(tx, table, scope, listing).await?;
    let counted = listing.start.as_ref().and_then(|start| start.total);
    let total = match counted {
        Some(total) => total,
        None => count(tx, &plan.count_query()?).await?,
    };
    let page = plan.page_query()?;
    let rows = page
        .bound()
        .fetch_all(tx.conn())
        .await
        .map_err(DbError::from)?;
    let size = usize::try_from(listing.page_size).unwrap_or(usize::MAX);
    let next = rows
        .get(size)
        .map(|row| token(row, plan.order, listing, scope, total))
        .transpose()?;
    let entries = rows
        .iter()
        .take(size)
        .map(decode)
        .collect::<Result<_, _>>()?;
    Ok(Page {
        entries,
        total,
        next,
    })
}

/// A page token goes on with its own list: that of one experiment says nothing about another's.
fn check_scope(scope: &ScopeFilter, listing: &Listing) -> Result<(), Error> {
    let start = listing.start.as_ref();
    match start.and_then(|start| start.scope.as_ref()) {
        Some(of_token) if *of_token != scope.to_token() => Err(Error::violations(
            "PAGE_TOKEN_INVALID",
            "Invalid input error",
            vec![FieldViolation::new(
                "page_token",
                "it is a page of another list: ask for the first page of this one without a token",
            )],
        )),
        _ => Ok(()),
    }
}

async fn count(tx: &mut impl Read, query: &Query) -> Result<i64, DbError> {
    let row = query.bound().fetch_one(tx.conn()).await?;
    Ok(row.try_get("n")?)
}

fn token(
    row: &AnyRow,
    order: Order,
    listing: &Listing,
    scope: &ScopeFilter,
    total: i64,
) -> Result<String, Error> {
    let text = |column| -> Result<Operand, DbError> {
        let value: Option<String> = row.try_get(column)?;
        Ok(Operand::Text(value.unwrap_or_default()))
    };
    let time = |column| -> Result<i64, DbError> {
        let value: Option<i64> = row.try_get(column)?;
        Ok(value.unwrap_or(0))
    };
    let (value, created_at) = match order {
        Order::Id => (text("id")?, None),
        Order::Time(column) => (Operand::Number(time(column)?), None),
        Order::Text(column) => (text(column)?, Some(time("created_at")?)),
    };
    let start = PageStart {
        sort_key: listing.sort_key.clone(),
        direction: listing.direction,
        predicates: listing.predicates.clone(),
        value,
        created_at,
        id: row.try_get("id").map_err(DbError::from)?,
        total: Some(total),
        scope: Some(scope.to_token()),
    };
    Ok(page::encode(&start)?)
}

/// How SQLite would count what a list matches, and read a page of it.
#[cfg(feature = "testing")]
pub async fn plans(
    db: &crate::Db,
    table: &Table,
    scope: &ScopeFilter,
    listing: &Listing,
) -> Result<[String; 2], Error> {
    let mut tx = db.begin_read().await?;
    let plan = Plan::of(&mut tx, table, scope, listing).await?;
    let queries = [plan.count_query()?, plan.page_query()?];
    let mut found = [String::new(), String::new()];
    for (place, query) in found.iter_mut().zip(queries) {
        let query = query.explained();
        let rows = query.bound().fetch_all(tx.conn()).await;
        let steps: Result<Vec<String>, _> = rows
            .map_err(DbError::from)?
            .iter()
            .map(|row| row.try_get("detail"))
            .collect();
        *place = steps.map_err(DbError::from)?.join("; ");
    }
    Ok(found)
}
