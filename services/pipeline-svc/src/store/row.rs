//! Reading typed cells out of rows; a cell that cannot be read names its table and column.

use std::str::FromStr;

use ferroflow_db::DbError;
use ferroflow_types::{Namespace, Scope, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::domain::run::RunError;

/// gRPC's code of an error that is none of its codes.
const UNKNOWN: i32 = 2;

/// The cells of one row.
pub(crate) struct Cells<'r> {
    table: &'static str,
    row: &'r AnyRow,
}

impl<'r> Cells<'r> {
    /// The cells of a row of `table`.
    pub(crate) fn of(table: &'static str, row: &'r AnyRow) -> Self {
        Self { table, row }
    }

    fn broken(&self, column: &str, problem: impl ToString) -> DbError {
        DbError::inconsistent(self.table, column, problem.to_string())
    }

    pub(crate) fn text(&self, column: &str) -> Result<String, DbError> {
        Ok(self.row.try_get(column)?)
    }

    pub(crate) fn text_opt(&self, column: &str) -> Result<Option<String>, DbError> {
        Ok(self.row.try_get(column)?)
    }

    pub(crate) fn int(&self, column: &str) -> Result<i64, DbError> {
        Ok(self.row.try_get(column)?)
    }

    pub(crate) fn int_opt(&self, column: &str) -> Result<Option<i64>, DbError> {
        Ok(self.row.try_get(column)?)
    }

    pub(crate) fn count(&self, column: &str) -> Result<u32, DbError> {
        u32::try_from(self.int(column)?).map_err(|error| self.broken(column, error))
    }

    pub(crate) fn time(&self, column: &str) -> Result<Timestamp, DbError> {
        self.int(column).map(Timestamp::from_millis)
    }

    pub(crate) fn time_opt(&self, column: &str) -> Result<Option<Timestamp>, DbError> {
        Ok(self.int_opt(column)?.map(Timestamp::from_millis))
    }

    pub(crate) fn parsed<T>(&self, column: &str) -> Result<T, DbError>
    where
        T: FromStr<Err: ToString>,
    {
        self.text(column)?
            .parse()
            .map_err(|error: T::Err| self.broken(column, error.to_string()))
    }

    pub(crate) fn parsed_opt<T>(&self, column: &str) -> Result<Option<T>, DbError>
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

    pub(crate) fn word<T>(
        &self,
        column: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, DbError> {
        let text = self.text(column)?;
        parse(&text).ok_or_else(|| self.broken(column, format!("unknown word {text:?}")))
    }

    /// The error in `error_code` and `error_message`, if there is one.
    pub(crate) fn error(&self) -> Result<Option<RunError>, DbError> {
        let code = i32::try_from(self.int("error_code")?).unwrap_or(UNKNOWN);
        let message = self.text("error_message")?;
        Ok((code != 0).then_some(RunError { code, message }))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, DbError> {
        serde_json::from_str(&self.text(column)?).map_err(|error| self.broken(column, error))
    }

    pub(crate) fn json_opt<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, DbError> {
        let Some(text) = self.text_opt(column)? else {
            return Ok(None);
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| self.broken(column, error))
    }
}

/// What is in a row, if the scope covers the namespace that is in it.
pub(crate) fn seen<T>(
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
pub(crate) fn all_seen<T>(
    scope: &impl Scope,
    rows: &[AnyRow],
    decode: impl Fn(&AnyRow) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let seen = rows.iter().map(|row| seen(scope, Some(row), &decode));
    seen.filter_map(Result::transpose).collect()
}

/// An error as [`Cells::error`] reads it back.
pub(crate) fn error_cells(error: Option<&RunError>) -> (i64, &str) {
    error.map_or((0, ""), |error| (i64::from(error.code), &error.message))
}

/// A value as the JSON text that [`Cells::json`] reads back.
pub(crate) fn json_text(value: &impl Serialize) -> String {
    // Our types have text keys only, which is the one thing that could fail.
    serde_json::to_string(value).unwrap_or_default()
}
