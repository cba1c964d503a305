//! Lists of any table: filter, order and keyset pages, in the one place where SQL is put together.
//!
//! Text in the statements comes from the static [`Table`] only; everything that a client says is a
//! bound value. Pages begin at a key (never at an offset), so any page costs the same.

use std::fmt::Display;

use ferroflow_types::listing::{Direction, Listing, Operand, Operation, Page, Predicate, Start};
use ferroflow_types::{Error, FieldViolation, Namespace};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row as _};

use crate::{DbError, Read, page};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
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
    pub keys: &'static [(&'static str, &'static str, Type)],
    /// Whether its rows have tags, in a table `tags` (`owner_id`, `key`, `value`).
    pub tagged: bool,
}

/// Conditions that are not the client's. There is always one that says whose rows may be seen.
#[derive(Debug, Clone)]
pub struct Within(Vec<(&'static str, String)>);

impl Within {
    /// Rows of a namespace.
    pub fn namespace(namespace: &Namespace) -> Self {
        Self(vec![("namespace", namespace.to_string())])
    }

    /// What belongs to something that was found, under the caller's scope, in `column`.
    pub fn parent(column: &'static str, id: impl Display) -> Self {
        Self(vec![(column, id.to_string())])
    }

    /// Of these, those with this value only.
    #[must_use]
    pub fn and(mut self, column: &'static str, value: impl Display) -> Self {
        self.0.push((column, value.to_string()));
        self
    }
}

/// A statement in the making.
#[derive(Default)]
struct Statement {
    conditions: Vec<String>,
    values: Vec<Operand>,
}

impl Statement {
    fn bind(&mut self, value: Operand) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn condition(&self) -> String {
        if self.conditions.is_empty() {
            "1 = 1".to_owned()
        } else {
            self.conditions.join(" AND ")
        }
    }
}

/// One page of a table.
///
/// # Errors
/// Invalid when a key is not known or an operation does not fit it.
pub async fn list<T>(
    tx: &mut impl Read,
    table: &Table,
    within: &Within,
    listing: &Listing,
    decode: impl Fn(&AnyRow) -> Result<T, DbError>,
) -> Result<Page<T>, Error> {
    let matching = matching(table, within, listing)?;
    let counted = listing.start.as_ref().and_then(|start| start.total);
    let total = match counted {
        Some(total) => total,
        None => count(tx, table, &matching).await?,
    };
    let order = order(table, &listing.sort_key)?;
    let (query, values) = page_query(table, listing, order, matching)?;
    let rows = bound(&query, &values)
        .fetch_all(tx.conn())
        .await
        .map_err(DbError::from)?;
    let size = usize::try_from(listing.page_size).unwrap_or(usize::MAX);
    let next = rows
        .get(size)
        .map(|row| token(row, order, listing, total))
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

/// The conditions of a list, on whatever page.
fn matching(table: &Table, within: &Within, listing: &Listing) -> Result<Statement, Error> {
    let mut statement = Statement::default();
    for (column, value) in &within.0 {
        let place = statement.bind(Operand::Text(value.clone()));
        statement.conditions.push(format!("{column} = {place}"));
    }
    for predicate in &listing.predicates {
        filter(table, predicate, &mut statement)?;
    }
    Ok(statement)
}

fn count_query(table: &Table, matching: &Statement) -> String {
    let condition = matching.condition();
    format!("SELECT COUNT(*) AS n FROM {} WHERE {condition}", table.name)
}

async fn count(tx: &mut impl Read, table: &Table, matching: &Statement) -> Result<i64, DbError> {
    let query = count_query(table, matching);
    let row = bound(&query, &matching.values).fetch_one(tx.conn()).await?;
    Ok(row.try_get("n")?)
}

/// What a list is in the order of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Id,
    Time(&'static str),
    /// A text that many entries may share, such as a state: those are in the order of their creation.
    Text(&'static str),
}

impl Order {
    fn of(column: &'static str, kind: Type) -> Self {
        match (column, kind) {
            ("id", _) => Self::Id,
            (column, Type::Time) => Self::Time(column),
            (column, Type::Text | Type::Optional) => Self::Text(column),
        }
    }

    /// SQLite sorts when a column is named twice.
    fn columns(self) -> Vec<&'static str> {
        match self {
            Self::Id => vec!["id"],
            Self::Time(column) => vec![column, "id"],
            Self::Text(column) => vec![column, "created_at", "id"],
        }
    }

    /// The values of those columns where a page begins.
    fn values(self, start: &Start) -> Result<Vec<Operand>, DbError> {
        let id = Operand::Text(start.id.clone());
        Ok(match self {
            Self::Id => vec![id],
            Self::Time(_) => vec![start.value.clone(), id],
            Self::Text(_) => {
                let created_at = start.created_at.ok_or(DbError::PageToken)?;
                vec![start.value.clone(), Operand::Number(created_at), id]
            }
        })
    }
}

/// A page and the first entry of the next one.
fn page_query(
    table: &Table,
    listing: &Listing,
    order: Order,
    mut statement: Statement,
) -> Result<(String, Vec<Operand>), DbError> {
    let (word, sign) = match listing.direction {
        Direction::Ascending => ("ASC", ">="),
        Direction::Descending => ("DESC", "<="),
    };
    let columns = order.columns();
    if let Some(start) = &listing.start {
        let values = order.values(start)?;
        let places: Vec<_> = values
            .into_iter()
            .map(|value| statement.bind(value))
            .collect();
        statement.conditions.push(format!(
            "({}) {sign} ({})",
            columns.join(", "),
            places.join(", ")
        ));
    }
    let limit = statement.bind(Operand::Number(listing.page_size + 1));
    let ordered: Vec<_> = columns
        .iter()
        .map(|column| format!("{column} {word}"))
        .collect();
    let query = format!(
        "SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {limit}",
        table.columns,
        table.name,
        statement.condition(),
        ordered.join(", ")
    );
    Ok((query, statement.values))
}

fn bound<'q>(text: &'q str, values: &[Operand]) -> Query<'q, Any, AnyArguments> {
    // The text is made of the table's own words and placeholders, see above.
    values.iter().fold(
        sqlx::query(AssertSqlSafe(text)),
        |query, value| match value {
            Operand::Number(number) => query.bind(*number),
            Operand::Text(text) => query.bind(text.clone()),
        },
    )
}

/// The order by a key that the client named.
fn order(table: &Table, key: &str) -> Result<Order, Error> {
    let sortable = || {
        table
            .keys
            .iter()
            .filter(|(_, _, kind)| *kind != Type::Optional)
    };
    let known = sortable().find(|(known, _, _)| *known == key);
    known
        .map(|(_, column, kind)| Order::of(column, *kind))
        .ok_or_else(|| {
            let names: Vec<_> = sortable().map(|(name, _, _)| *name).collect();
            let problem = format!(
                "Invalid sorting field: {key:?}; known are {}",
                names.join(", ")
            );
            Error::violations(
                "SORT_INVALID",
                "Invalid input error",
                vec![FieldViolation::new("sort_by", problem)],
            )
        })
}

fn token(row: &AnyRow, order: Order, listing: &Listing, total: i64) -> Result<String, Error> {
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
    let start = Start {
        sort_key: listing.sort_key.clone(),
        direction: listing.direction,
        predicates: listing.predicates.clone(),
        value,
        created_at,
        id: row.try_get("id").map_err(DbError::from)?,
        total: Some(total),
    };
    Ok(page::encode(&start)?)
}

fn wrong(key: &str, problem: &str) -> Error {
    let violation = FieldViolation::new(format!("filter.{key}"), problem);
    Error::violations("FILTER_INVALID", "Invalid filter", vec![violation])
}

fn filter(table: &Table, predicate: &Predicate, statement: &mut Statement) -> Result<(), Error> {
    let key = predicate.key.as_str();
    if let (true, Some(tag)) = (table.tagged, key.strip_prefix("tags.")) {
        let [Operand::Text(value)] = predicate.values.as_slice() else {
            return Err(wrong(key, "a tag is compared with one string_value"));
        };
        if predicate.operation != Operation::Equals {
            return Err(wrong(key, "tags can only be compared with EQUALS"));
        }
        let tag = statement.bind(Operand::Text(tag.to_owned()));
        let value = statement.bind(Operand::Text(value.clone()));
        statement.conditions.push(format!(
            "id IN (SELECT owner_id FROM tags WHERE tags.key = {tag} AND tags.value = {value})"
        ));
        return Ok(());
    }
    let known = table.keys.iter().find(|(known, _, _)| *known == key);
    let Some((_, column, kind)) = known else {
        return Err(wrong(key, "no support for filtering on unrecognized field"));
    };
    let mut values = Vec::with_capacity(predicate.values.len());
    for value in &predicate.values {
        values.push(match (kind, value) {
            (Type::Time, Operand::Number(seconds)) => Operand::Number(seconds.saturating_mul(1000)),
            (Type::Text | Type::Optional, Operand::Text(text)) => Operand::Text(text.clone()),
            (Type::Time, Operand::Text(_)) => return Err(wrong(key, "it is compared with a time")),
            (Type::Text | Type::Optional, Operand::Number(_)) => {
                return Err(wrong(key, "it is compared with a string"));
            }
        });
    }
    let condition = condition(predicate.operation, column, *kind, values, statement)
        .ok_or_else(|| wrong(key, "the operation and its value do not fit together"))?;
    statement.conditions.push(condition);
    Ok(())
}

fn condition(
    operation: Operation,
    column: &str,
    kind: Type,
    values: Vec<Operand>,
    statement: &mut Statement,
) -> Option<String> {
    let sign = match operation {
        Operation::Equals => "=",
        Operation::NotEquals => "<>",
        Operation::Greater => ">",
        Operation::GreaterEquals => ">=",
        Operation::Less => "<",
        Operation::LessEquals => "<=",
        Operation::In => {
            let places: Vec<_> = values
                .into_iter()
                .map(|value| statement.bind(value))
                .collect();
            return (!places.is_empty()).then(|| format!("{column} IN ({})", places.join(", ")));
        }
        Operation::IsSubstring => {
            let [Operand::Text(part)] = values.as_slice() else {
                return None;
            };
            let escaped = part
                .replace('\\', "\\\\")
                .replace('%', "\\%")
                .replace('_', "\\_");
            let place = statement.bind(Operand::Text(format!("%{escaped}%")));
            return Some(format!("{column} LIKE {place} ESCAPE '\\'"));
        }
    };
    // Clients speak of whole seconds, columns hold milliseconds.
    let column = match (kind, operation) {
        (Type::Time, Operation::Equals | Operation::NotEquals) => {
            format!("({column} - {column} % 1000)")
        }
        _ => column.to_owned(),
    };
    let [value] = <[Operand; 1]>::try_from(values).ok()?;
    Some(format!("{column} {sign} {}", statement.bind(value)))
}

/// How SQLite would count what a list matches, and read a page of it.
#[cfg(feature = "testing")]
pub async fn plans(
    db: &crate::Db,
    table: &Table,
    within: &Within,
    listing: &Listing,
) -> Result<[String; 2], Error> {
    let statement = matching(table, within, listing)?;
    let counting = count_query(table, &statement);
    let counted = statement.values.clone();
    let order = order(table, &listing.sort_key)?;
    let (page, values) = page_query(table, listing, order, statement)?;
    let mut found = [String::new(), String::new()];
    let mut tx = db.begin_read().await?;
    for (place, (query, values)) in found.iter_mut().zip([(counting, counted), (page, values)]) {
        let query = format!("EXPLAIN QUERY PLAN {query}");
        let rows = bound(&query, &values).fetch_all(tx.conn()).await;
        let steps: Result<Vec<String>, _> = rows
            .map_err(DbError::from)?
            .iter()
            .map(|row| row.try_get("detail"))
            .collect();
        *place = steps.map_err(DbError::from)?.join("; ");
    }
    Ok(found)
}
