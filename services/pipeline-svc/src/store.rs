//! SQL, one file per aggregate; rows to domain and back.

pub(crate) mod artifacts;
pub(crate) mod experiments;
#[cfg(test)]
mod list_tests;
pub(crate) mod ownership;
pub(crate) mod pipelines;
pub(crate) mod recurring_runs;
mod row;
pub(crate) mod runs;
pub(crate) mod specs;
pub(crate) mod tasks;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod versions;

use ferroflow_db::{Migration, Sql};

/// The schema, step by step. Both databases accept every statement.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "definitions",
        sql: Sql::Both(include_str!("../migrations/0001_definitions.sql")),
    },
    Migration {
        version: 2,
        name: "runs",
        sql: Sql::Both(include_str!("../migrations/0002_runs.sql")),
    },
    Migration {
        version: 3,
        name: "replicas",
        sql: Sql::Both(include_str!("../migrations/0003_replicas.sql")),
    },
    Migration {
        version: 4,
        name: "task notes",
        sql: Sql::Both(include_str!("../migrations/0004_task_notes.sql")),
    },
    Migration {
        version: 5,
        name: "runs by pipeline",
        sql: Sql::Both(include_str!("../migrations/0005_runs_by_pipeline.sql")),
    },
    Migration {
        version: 6,
        name: "recurring runs",
        sql: Sql::Both(include_str!("../migrations/0006_recurring_runs.sql")),
    },
    Migration {
        version: 7,
        name: "artifact stamps",
        sql: Sql::Both(include_str!("../migrations/0007_artifact_stamps.sql")),
    },
    Migration {
        version: 8,
        name: "task remarks",
        sql: Sql::Both(include_str!("../migrations/0008_task_remarks.sql")),
    },
    Migration {
        version: 9,
        name: "default experiment",
        sql: Sql::Both(include_str!("../migrations/0009_default_experiment.sql")),
    },
    Migration {
        version: 10,
        name: "lists by namespace",
        sql: Sql::Both(include_str!("../migrations/0010_lists_by_namespace.sql")),
    },
    Migration {
        version: 11,
        name: "lists in order of time",
        sql: Sql::Both(include_str!(
            "../migrations/0011_lists_in_order_of_time.sql"
        )),
    },
    Migration {
        version: 12,
        name: "created by",
        sql: Sql::Both(include_str!("../migrations/0012_created_by.sql")),
    },
    Migration {
        version: 13,
        name: "counts of runs",
        sql: Sql::Both(include_str!("../migrations/0013_counts_of_runs.sql")),
    },
    Migration {
        version: 14,
        name: "texts of runs",
        sql: Sql::PerDatabase {
            sqlite: include_str!("../migrations/0014_texts_of_runs.sqlite.sql"),
            postgres: include_str!("../migrations/0014_texts_of_runs.postgres.sql"),
        },
    },
];
