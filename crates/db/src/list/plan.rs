//! The statements that read a list: its count, and a page.

use ferroflow_types::Error;
use ferroflow_types::listing::{Direction, Listing, Operand};
use sqlx::any::AnyArguments;
use sqlx::{Any, AssertSqlSafe};

use super::filter::filter;
use super::order::{Order, order};
use super::substring::{self, SubstringMatches};
use super::{ScopeFilter, Table};
use crate::Read;

/// A statement, made of a table's own words and placeholders, and what takes their places.
pub(super) struct Query {
    text: String,
    values: Vec<Operand>,
}

impl Query {
    pub(super) fn bound(&self) -> sqlx::query::Query<'_, Any, AnyArguments> {
        let query = sqlx::query(AssertSqlSafe(self.text.as_str()));
        self.values.iter().fold(query, |query, value| match value {
            Operand::Number(number) => query.bind(*number),
            Operand::Text(text) => query.bind(text.clone()),
        })
    }

    /// How SQLite would run it.
    #[cfg(feature = "testing")]
    pub(super) fn explained(mut self) -> Self {
        self.text.insert_str(0, "EXPLAIN QUERY PLAN ");
        self
    }
}

/// Conditions in the making.
#[derive(Default)]
pub(super) struct Conditions {
    all: Vec<String>,
    values: Vec<Operand>,
}

impl Conditions {
    /// The placeholder of a value.
    pub(super) fn bind(&mut self, value: Operand) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    /// One more that must hold.
    pub(super) fn and(&mut self, condition: String) {
        self.all.push(condition);
    }

    fn text(&self) -> String {
        if self.all.is_empty() {
            "1 = 1".to_owned()
        } else {
            self.all.join(" AND ")
        }
    }
}

/// How a list is read.
pub(super) struct Plan<'a> {
    table: &'a Table,
    scope: &'a ScopeFilter,
    listing: &'a Listing,
    pub(super) order: Order,
    sqlite: bool,
    found: Option<SubstringMatches>,
}

impl<'a> Plan<'a> {
    pub(super) async fn of(
        tx: &mut impl Read,
        table: &'a Table,
        scope: &'a ScopeFilter,
        listing: &'a Listing,
    ) -> Result<Self, Error> {
        let order = order(table, &listing.sort_key)?;
        let sqlite = tx.conn().backend_name() == "SQLite";
        let found = if sqlite {
            substring::find(tx.conn(), table, listing).await?
        } else {
            None
        };
        Ok(Self {
            table,
            scope,
            listing,
            order,
            sqlite,
            found,
        })
    }

    /// How many match, as `n`.
    pub(super) fn count_query(&self) -> Result<Query, Error> {
        let name = self.table.name;
        if let ([(column @ "namespace", value)], [], true) = (
            self.scope.0.as_slice(),
            self.listing.predicates.as_slice(),
            self.sqlite,
        ) {
            // SQLite counts the rows of a whole table by its pages (0.2 ms for 100,000), and others one by
            // one (7 ms). A database of one user has one namespace.
            return Ok(Query {
                text: format!(
                    "SELECT (SELECT COUNT(*) FROM {name}) \
                     - (SELECT COUNT(*) FROM {name} WHERE {column} < $1) \
                     - (SELECT COUNT(*) FROM {name} WHERE {column} > $1) AS n"
                ),
                values: vec![Operand::Text(value.clone())],
            });
        }
        let conditions = self.conditions(self.found.as_ref())?;
        Ok(Query {
            text: format!(
                "SELECT COUNT(*) AS n FROM {name} WHERE {}",
                conditions.text()
            ),
            values: conditions.values,
        })
    }

    /// A page and the first entry of the next one.
    pub(super) fn page_query(&self) -> Result<Query, Error> {
        let lookup = self.found.as_ref().filter(|found| found.lookup_by_id);
        let mut conditions = self.conditions(lookup)?;
        let (word, sign) = match self.listing.direction {
            Direction::Ascending => ("ASC", ">="),
            Direction::Descending => ("DESC", "<="),
        };
        // A plus keeps SQLite from reading all rows in this order to see which were found.
        let plus = if lookup.is_some() { "+" } else { "" };
        let columns = self.order.columns();
        let columns: Vec<_> = columns.iter().map(|name| format!("{plus}{name}")).collect();
        if let Some(start) = &self.listing.start {
            let values = self.order.values(start)?;
            let places: Vec<_> = values
                .into_iter()
                .map(|value| conditions.bind(value))
                .collect();
            let (columns, places) = (columns.join(", "), places.join(", "));
            conditions.and(format!("({columns}) {sign} ({places})"));
        }
        let limit = conditions.bind(Operand::Number(self.listing.page_size + 1));
        let ordered: Vec<_> = columns
            .iter()
            .map(|column| format!("{column} {word}"))
            .collect();
        let text = format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {limit}",
            self.table.columns,
            self.table.name,
            conditions.text(),
            ordered.join(", ")
        );
        Ok(Query {
            text,
            values: conditions.values,
        })
    }

    /// What must hold on whatever page; of one predicate, what was found.
    fn conditions(&self, found: Option<&SubstringMatches>) -> Result<Conditions, Error> {
        let mut conditions = Conditions::default();
        for (column, value) in &self.scope.0 {
            let place = conditions.bind(Operand::Text(value.clone()));
            conditions.and(format!("{column} = {place}"));
        }
        for (at, predicate) in self.listing.predicates.iter().enumerate() {
            match found.filter(|found| found.predicate == at) {
                Some(found) => {
                    let ids = conditions.bind(Operand::Text(found.ids.clone()));
                    conditions.and(format!("id IN (SELECT value FROM json_each({ids}))"));
                }
                None => filter(self.table, predicate, self.sqlite, &mut conditions)?,
            }
        }
        Ok(conditions)
    }
}
