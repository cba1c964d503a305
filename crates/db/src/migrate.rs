//! Numbered migrations, each in a transaction of its own, each run once.
//!
//! What was run is kept with a checksum: a database written by a newer version, or a released
//! migration that was edited, is refused before anything is changed.

use sqlx::{AssertSqlSafe, Row as _};

use crate::{Db, DbError, Read as _};

/// One step of a schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its number, from 1 without gaps.
    pub version: u32,
    /// Its name, for people.
    pub name: &'static str,
    /// Its statements.
    pub sql: Sql,
}

/// Statements of a migration, each ended by `;`.
#[derive(Debug, Clone, Copy)]
pub enum Sql {
    /// Those that both databases accept.
    Both(&'static str),
    /// For what only one of them has, such as an index of its own kind.
    PerDatabase {
        /// Those of SQLite.
        sqlite: &'static str,
        /// Those of PostgreSQL.
        postgres: &'static str,
    },
}

impl Sql {
    fn text(self, postgres: bool) -> &'static str {
        match self {
            Self::Both(text) => text,
            Self::PerDatabase { postgres: text, .. } if postgres => text,
            Self::PerDatabase { sqlite, .. } => sqlite,
        }
    }
}

/// Steps that every database has, numbered apart from the service's own.
const BASE: [Migration; 2] = [
    Migration {
        version: 1,
        name: "base",
        sql: Sql::Both(include_str!("../migrations/0001_base.sql")),
    },
    Migration {
        version: 2,
        name: "leases",
        sql: Sql::Both(include_str!("../migrations/0002_leases.sql")),
    },
];

/// PostgreSQL's advisory lock for migrations: two replicas that start together take turns.
const LOCK: i64 = 0x00fe_4402;

impl Db {
    pub(crate) async fn migrate(&self, migrations: &'static [Migration]) -> Result<(), DbError> {
        self.migrate_parts(&[("base", &BASE), ("service", migrations)])
            .await
    }

    /// Brings tables up to date that a library needs beside a service's own; they are numbered
    /// apart, under the name of the part.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn add_part(
        &self,
        part: &'static str,
        migrations: &'static [Migration],
    ) -> Result<(), DbError> {
        self.migrate_parts(&[(part, migrations)]).await
    }

    async fn migrate_parts(
        &self,
        parts: &[(&'static str, &'static [Migration])],
    ) -> Result<(), DbError> {
        let mut lock = self.connection().await?;
        if let Some(conn) = &mut lock {
            sqlx::query("SELECT pg_advisory_lock($1)")
                .bind(LOCK)
                .execute(&mut **conn)
                .await?;
        }
        let mut result = Ok(());
        for (part, steps) in parts {
            if result.is_ok() {
                result = self.run_steps(part, steps).await;
            }
        }
        if let Some(conn) = &mut lock {
            sqlx::query("SELECT pg_advisory_unlock($1)")
                .bind(LOCK)
                .execute(&mut **conn)
                .await?;
        }
        result
    }

    async fn run_steps(&self, part: &str, steps: &[Migration]) -> Result<(), DbError> {
        ensure_numbered(steps)?;
        let postgres = self.is_postgres();
        let mut tx = self.begin_write().await?;
        sqlx::query(
            "CREATE TABLE IF NOT EXISTS schema_migrations (part TEXT NOT NULL, \
             version BIGINT NOT NULL, name TEXT NOT NULL, checksum TEXT NOT NULL, \
             PRIMARY KEY (part, version))",
        )
        .execute(tx.conn())
        .await?;
        let rows = sqlx::query(
            "SELECT version, name, checksum FROM schema_migrations WHERE part = $1 ORDER BY version",
        )
        .bind(part)
        .fetch_all(tx.conn())
        .await?;
        tx.commit().await?;
        for row in &rows {
            let version: i64 = row.try_get("version")?;
            let name: String = row.try_get("name")?;
            let checksum: String = row.try_get("checksum")?;
            let known = steps.iter().find(|step| i64::from(step.version) == version);
            let problem = match known {
                None => "the database was written by a newer version of this program",
                Some(step) if checksum_of(step.sql.text(postgres)) != checksum => {
                    "it was changed after it was run"
                }
                Some(_) => continue,
            };
            return Err(DbError::Migration {
                version,
                name,
                problem: problem.to_owned(),
            });
        }
        for step in steps.iter().skip(rows.len()) {
            self.run_step(part, step).await?;
        }
        Ok(())
    }

    async fn run_step(&self, part: &str, step: &Migration) -> Result<(), DbError> {
        let mut tx = self.begin_write().await?;
        // Another process may have done it since the list was read; only one writes at a time.
        let applied =
            sqlx::query("SELECT version FROM schema_migrations WHERE part = $1 AND version = $2")
                .bind(part)
                .bind(i64::from(step.version))
                .fetch_optional(tx.conn())
                .await?;
        if applied.is_some() {
            return Ok(());
        }
        let text = step.sql.text(self.is_postgres());
        // Our own text, out of a constant.
        sqlx::raw_sql(AssertSqlSafe(text))
            .execute(tx.conn())
            .await
            .map_err(|error| DbError::Migration {
                version: i64::from(step.version),
                name: step.name.to_owned(),
                problem: error.to_string(),
            })?;
        sqlx::query(
            "INSERT INTO schema_migrations (part, version, name, checksum) VALUES ($1, $2, $3, $4)",
        )
        .bind(part)
        .bind(i64::from(step.version))
        .bind(step.name)
        .bind(checksum_of(text))
        .execute(tx.conn())
        .await?;
        tx.commit().await
    }
}

/// How many steps were run says which comes next, so there must be no gap.
fn ensure_numbered(steps: &[Migration]) -> Result<(), DbError> {
    for (expected, step) in (1_u32..).zip(steps) {
        if step.version != expected {
            return Err(DbError::Migration {
                version: i64::from(step.version),
                name: step.name.to_owned(),
                problem: format!("migrations are numbered without gaps, this must be {expected}"),
            });
        }
    }
    Ok(())
}

/// FNV-1a over the text: it guards against slips, not against malice.
fn checksum_of(sql: &str) -> String {
    let hash = sql.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
