//! Reading typed cells out of rows; a cell that cannot be read names its table and column.
//!
//! What is in another namespace is not visible: [`decode_visible`] compares the row's with the
//! caller's scope.

use std::str::FromStr;

use ferroflow_types::{Namespace, Scope, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::DbError;

/// The cells of one row. Each is read by the name of its column, and is an inconsistency of the database
/// when it cannot be.
pub struct Cells<'r> {
    table: &'static str,
    row: &'r AnyRow,
}

impl<'r> Cells<'r> {
    /// The cells of a row of `table`.
    pub fn of(table: &'static str, row: &'r AnyRow) -> Self {
        Self { table, row }
    }

    fn broken(&self, column: &str, problem: impl ToString) -> DbError {
        DbError::inconsistent(self.table, column, problem.to_string())
    }

    /// A text.
    pub fn text(&self, column: &str) -> Result<String, DbError> {
        Ok(self.row.try_get(column)?)
    }

    /// A text, or NULL.
    pub fn text_opt(&self, column: &str) -> Result<Option<String>, DbError> {
        Ok(self.row.try_get(column)?)
    }

    /// A number.
    pub fn int(&self, column: &str) -> Result<i64, DbError> {
        Ok(self.row.try_get(column)?)
    }

    /// A number, or NULL.
    pub fn int_opt(&self, column: &str) -> Result<Option<i64>, DbError> {
        Ok(self.row.try_get(column)?)
    }

    /// A number that is not negative.
    pub fn count(&self, column: &str) -> Result<u32, DbError> {
        u32::try_from(self.int(column)?).map_err(|error| self.broken(column, error))
    }

    /// A time, in milliseconds since the epoch.
    pub fn time(&self, column: &str) -> Result<Timestamp, DbError> {
        self.int(column).map(Timestamp::from_millis)
    }

    /// A time, or NULL.
    pub fn time_opt(&self, column: &str) -> Result<Option<Timestamp>, DbError> {
        Ok(self.int_opt(column)?.map(Timestamp::from_millis))
    }

    /// A text that is written as [`FromStr`] reads it.
    pub fn parsed<T>(&self, column: &str) -> Result<T, DbError>
    where
        T: FromStr<Err: ToString>,
    {
        self.text(column)?
            .parse()
            .map_err(|error: T::Err| self.broken(column, error.to_string()))
    }

    /// The same, or NULL.
    pub fn parsed_opt<T>(&self, column: &str) -> Result<Option<T>, DbError>
    where
        T: FromStr<Err: ToString>,
    {
        let Some(text) = self.text_opt(column)? else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|error: T::Err| self.broken(column, error.to_string()))
    }

    /// One of several words.
    pub fn enum_value<T>(
        &self,
        column: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, DbError> {
        let text = self.text(column)?;
        parse(&text).ok_or_else(|| self.broken(column, format!("unknown word {text:?}")))
    }

    /// A value in JSON.
    pub fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, DbError> {
        serde_json::from_str(&self.text(column)?).map_err(|error| self.broken(column, error))
    }

    /// A value in JSON, or NULL.
    pub fn json_opt<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, DbError> {
        let Some(text) = self.text_opt(column)? else {
            return Ok(None);
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| self.broken(column, error))
    }
}

/// What is in a row, if the scope covers the namespace that is in it.
pub fn decode_visible<T>(
    scope: &impl Scope,
    row: Option<&AnyRow>,
    decode: impl Fn(&AnyRow) -> Result<T, DbError>,
) -> Result<Option<T>, DbError> {
    let Some(row) = row else {
        return Ok(None);
    };
    let namespace: Namespace = Cells::of("namespace", row).parsed("namespace")?;
    scope.covers(&namespace).then(|| decode(row)).transpose()
}

/// What is in those rows whose namespaces the scope covers.
pub fn decode_all_visible<T>(
    scope: &impl Scope,
    rows: &[AnyRow],
    decode: impl Fn(&AnyRow) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let visible = rows
        .iter()
        .map(|row| decode_visible(scope, Some(row), &decode));
    visible.filter_map(Result::transpose).collect()
}

/// A value as the JSON text that [`Cells::json`] reads back.
pub fn json_text(value: &impl Serialize) -> String {
    // Our types have text keys only, which is the one thing that could fail.
    serde_json::to_string(value).unwrap_or_default()
}
