//! Errors of runs in the columns `error_code` and `error_message`.

use ferroflow_db::DbError;
use ferroflow_db::row::Cells;

use crate::domain::run::RunError;

/// gRPC's code of an error that is none of its codes.
const UNKNOWN: i32 = 2;

/// The error of a row, if there is one.
pub(crate) fn error(cells: &Cells<'_>) -> Result<Option<RunError>, DbError> {
    let code = i32::try_from(cells.int("error_code")?).unwrap_or(UNKNOWN);
    let message = cells.text("error_message")?;
    Ok((code != 0).then_some(RunError { code, message }))
}

/// An error as [`error`] reads it back.
pub(crate) fn error_cells(error: Option<&RunError>) -> (i64, &str) {
    error.map_or((0, ""), |error| (i64::from(error.code), &error.message))
}
