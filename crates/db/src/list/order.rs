//! What lists are in the order of.

use ferroflow_types::listing::{Operand, PageStart};
use ferroflow_types::{Error, FieldViolation};

use super::{ColumnType, Table};
use crate::DbError;

/// What a list is in the order of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Id,
    Time(&'static str),
    /// A text that many entries may share, such as a state: those are in the order of their creation.
    Text(&'static str),
}

impl Order {
    fn of(column: &'static str, kind: ColumnType) -> Self {
        match (column, kind) {
            ("id", _) => Self::Id,
            (column, ColumnType::Time) => Self::Time(column),
            (column, ColumnType::Text | ColumnType::Optional) => Self::Text(column),
        }
    }

    /// SQLite sorts when a column is named twice.
    pub(super) fn columns(self) -> Vec<&'static str> {
        match self {
            Self::Id => vec!["id"],
            Self::Time(column) => vec![column, "id"],
            Self::Text(column) => vec![column, "created_at", "id"],
        }
    }

    /// The values of those columns where a page begins.
    pub(super) fn values(self, start: &PageStart) -> Result<Vec<Operand>, DbError> {
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

/// The order by a key that the client named.
pub(super) fn order(table: &Table, key: &str) -> Result<Order, Error> {
    let sortable = || {
        table
            .keys
            .iter()
            .filter(|(_, _, kind)| *kind != ColumnType::Optional)
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
