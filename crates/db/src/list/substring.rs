//! Filters by a substring, found by trigrams on SQLite.
//!
//! PostgreSQL uses its GIN index of `pg_trgm` by itself. SQLite has trigrams in a table of its own (FTS5),
//! of which its planner cannot know how many rows it finds. So those are read first. Measured on
//! 100,000 runs:
//!
//! | rows found | counted | a page is read | without the index |
//! |---|---|---|---|
//! | up to [`LOOKUP_MAX`] | in an index of ids, 4 µs a row | by looking each up, 13 µs a row | count 28 ms, page 80 ms |
//! | up to [`MATCHES_MAX`] | the same | in its order, past rows that do not match | the same |
//! | more | in an index that has the column, 28 ms | in its order, where most rows match | the same |

use ferroflow_types::listing::{Listing, Operand, Operation, Predicate};
use sqlx::Row as _;
use sqlx::{AnyConnection, AssertSqlSafe};

use super::Table;
use super::filter::{contains, pattern};
use crate::DbError;

/// A full-text index of some columns of a table.
///
/// On SQLite it is an FTS5 table with the tokenizer `trigram` over a table `…_rows`, which has `number`, `id`
/// and the columns; triggers keep both. On PostgreSQL it is a GIN index of `pg_trgm`.
#[derive(Debug)]
pub struct TextIndex {
    /// The FTS5 table.
    pub table: &'static str,
    /// The columns of the listed table that are in it.
    pub columns: &'static [&'static str],
}

/// The shortest part that FTS5 finds, in characters.
const TRIGRAM: usize = 3;

/// As many characters are looked for in the index. Each costs a pass over the rows that have its trigram:
/// 10,000 times the same letter took more than a minute where 20,000 names repeat it.
const PHRASE_MAX: usize = 16;

const MATCHES_MAX: i64 = 2_000;
const LOOKUP_MAX: i64 = 300;

/// The rows that one of the predicates matches.
pub(super) struct SubstringMatches {
    /// Which of the predicates.
    pub(super) predicate: usize,
    /// Their ids, as JSON.
    pub(super) ids: String,
    /// Whether a page is read by looking each up.
    pub(super) lookup_by_id: bool,
}

/// What the first predicate that the index answers matches; nothing when there is none, or when it
/// matches more than [`MATCHES_MAX`].
pub(super) async fn find(
    conn: &mut AnyConnection,
    table: &Table,
    listing: &Listing,
) -> Result<Option<SubstringMatches>, DbError> {
    let Some(texts) = &table.text_index else {
        return Ok(None);
    };
    let mut predicates = listing.predicates.iter().enumerate();
    let indexed = predicates.find_map(|(at, predicate)| {
        let (column, part) = indexed_predicate(table, texts, predicate)?;
        Some((at, column, part))
    });
    let Some((predicate, column, part)) = indexed else {
        return Ok(None);
    };
    let index = texts.table;
    // FTS5 takes more letters for the same than LIKE does, such as the Kelvin sign for a k, and finds a
    // beginning of the part only. What is found must not depend on how many there are.
    let like = contains(&format!("{index}_rows.{column}"), "$2", true);
    // One row, as each costs a message from the thread of the connection.
    let query = format!(
        "SELECT COUNT(*) AS found, json_group_array(id) AS ids FROM (SELECT id \
         FROM {index} CROSS JOIN {index}_rows ON number = {index}.rowid \
         WHERE {index} MATCH $1 AND {like} LIMIT {limit})",
        limit = MATCHES_MAX + 1
    );
    // The text is made of the table's own words and placeholders.
    let beginning: String = part.chars().take(PHRASE_MAX).collect();
    let phrase = format!("{column} : \"{}\"", beginning.replace('"', "\"\""));
    let row = sqlx::query(AssertSqlSafe(query))
        .bind(phrase)
        .bind(pattern(part))
        .fetch_one(conn)
        .await?;
    let found: i64 = row.try_get("found")?;
    if found > MATCHES_MAX {
        return Ok(None);
    }
    Ok(Some(SubstringMatches {
        predicate,
        ids: row.try_get("ids")?,
        lookup_by_id: found <= LOOKUP_MAX,
    }))
}

/// The column and the text of a predicate that the index answers.
fn indexed_predicate<'a>(
    table: &Table,
    texts: &TextIndex,
    predicate: &'a Predicate,
) -> Option<(&'static str, &'a str)> {
    let [Operand::Text(part)] = predicate.values.as_slice() else {
        return None;
    };
    // For FTS5 a NUL ends its expression.
    let is_searchable = part.chars().count() >= TRIGRAM && !part.contains('\0');
    if predicate.operation != Operation::IsSubstring || !is_searchable {
        return None;
    }
    let mut keys = table.keys.iter();
    let (_, column, _) = keys.find(|(key, _, _)| *key == predicate.key)?;
    texts.columns.contains(column).then_some((*column, part))
}
