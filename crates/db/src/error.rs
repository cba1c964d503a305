//! What can go wrong with a database, as far as a caller can tell the difference.

use ferroflow_types::{Error, ErrorKind, FieldViolation};
use sqlx::any::AnyQueryResult;
use sqlx::error::DatabaseError;

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// It cannot be reached, is locked, or its disk is full.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// A value that must be unique is there already.
    #[error("{constraint} is taken")]
    UniqueViolation {
        /// The columns (SQLite) or the constraint (PostgreSQL).
        constraint: String,
    },
    /// No row is as the statement asks: somebody else changed or deleted it meanwhile.
    #[error("table {table}: the row was changed meanwhile")]
    Conflict {
        /// The table.
        table: &'static str,
    },
    /// A stored value makes no sense.
    #[error("table {table}, column {column}: {problem}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// What is wrong.
        problem: String,
    },
    /// The schema cannot be brought up to date.
    #[error("migration {version} ({name}): {problem}")]
    Migration {
        /// Its number.
        version: i64,
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A text with a NUL character, which PostgreSQL cannot keep.
    #[error("a text has a NUL character")]
    Nul,
    /// A page token that is not one of ours.
    #[error("not a page token")]
    PageToken,
    /// Anything else: a defect of ours.
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
}

impl DbError {
    /// A stored value that makes no sense.
    pub fn inconsistent(table: &'static str, column: &str, problem: String) -> Self {
        Self::Inconsistent {
            table,
            column: column.to_owned(),
            problem,
        }
    }
}

/// Sees to it that a write met exactly the row that it was meant for.
///
/// # Errors
/// [`DbError::Conflict`] when it met none, [`DbError::Inconsistent`] when it met several.
pub fn ensure_one(result: &AnyQueryResult, table: &'static str) -> Result<(), DbError> {
    match result.rows_affected() {
        1 => Ok(()),
        0 => Err(DbError::Conflict { table }),
        many => {
            let problem = format!("{many} rows were written where there must be one");
            Err(DbError::inconsistent(table, "*", problem))
        }
    }
}

/// The task that did the work ended before it was done: the process stops.
pub(crate) fn interrupted(error: tokio::task::JoinError) -> DbError {
    DbError::Unavailable(sqlx::Error::Protocol(format!(
        "a transaction was interrupted: {error}"
    )))
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Self::UniqueViolation {
                constraint: inner
                    .constraint()
                    .unwrap_or_else(|| inner.message())
                    .to_owned(),
            },
            // SQLSTATE character_not_in_repertoire.
            sqlx::Error::Database(inner) if inner.code().as_deref() == Some("22021") => Self::Nul,
            sqlx::Error::Database(inner) if is_transient(inner.as_ref()) => {
                Self::Unavailable(error)
            }
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Self::Unavailable(error)
            }
            _ => Self::Statement(error),
        }
    }
}

/// Whether it tells of a state of the machine or the server and not of a wrong statement; trying
/// again may help.
fn is_transient(error: &dyn DatabaseError) -> bool {
    const SQLITE: [&str; 4] = [
        "database is locked",
        "disk is full",
        "disk I/O error",
        "unable to open",
    ];
    // SQLSTATE classes of PostgreSQL: connection, rollback (deadlock), resources, intervention.
    const POSTGRES: [&str; 4] = ["08", "40", "53", "57"];
    let is_state =
        |code: &str| code.len() == 5 && POSTGRES.iter().any(|class| code.starts_with(class));
    let message = error.message();
    SQLITE.iter().any(|known| message.contains(known))
        || error.code().is_some_and(|code| is_state(&code))
}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        let (kind, reason, message) = match &error {
            DbError::Unavailable(source) if source.to_string().contains("disk is full") => (
                ErrorKind::Unavailable,
                "DISK_FULL",
                "nothing can be stored: the disk is full",
            ),
            DbError::Unavailable(_) => (
                ErrorKind::Unavailable,
                "DATABASE_UNAVAILABLE",
                "the database is unavailable",
            ),
            DbError::Nul => (
                ErrorKind::Invalid,
                "TEXT_HAS_NUL",
                "a text in the request has a NUL character (U+0000), which cannot be stored",
            ),
            DbError::UniqueViolation { .. } => (
                ErrorKind::AlreadyExists,
                "ALREADY_EXISTS",
                "the name or id is taken",
            ),
            DbError::Conflict { .. } => (
                ErrorKind::Conflict,
                "CONFLICT",
                "it was changed meanwhile: read it again and repeat",
            ),
            DbError::Inconsistent { .. } => (
                ErrorKind::DataLoss,
                "DATA_INCONSISTENT",
                "stored data is inconsistent",
            ),
            DbError::PageToken => {
                let problem = "it is not one that this server gave";
                let field = FieldViolation::new("page_token", problem);
                return Self::violations("PAGE_TOKEN_INVALID", "Invalid page token", vec![field])
                    .caused_by(error);
            }
            DbError::Migration { .. } | DbError::Statement(_) => (
                ErrorKind::Internal,
                "INTERNAL",
                "the database refused a statement",
            ),
        };
        Self::new(kind, reason, message).caused_by(error)
    }
}
