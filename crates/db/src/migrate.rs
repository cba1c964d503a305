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
    /// Statements that both databases accept, each ended by `;`.
    pub sql: &'static str,
}

/// Steps that every database has, numbered apart from the service's own.
const BASE: [Migration; 2] = [
    Migration {
        version: 1,
        name: "base",
        sql: include_str!("../migrations/0001_base.sql"),
    },
    Migration {
        version: 2,
        name: "leases",
        sql: include_str!("../migrations/0002_leases.sql"),
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
        let mut done = Ok(());
        for (part, steps) in parts {
            if done.is_ok() {
                done = self.run_steps(part, steps).await;
            }
        }
        if let Some(conn) = &mut lock {
            sqlx::query("SELECT pg_advisory_unlock($1)")
                .bind(LOCK)
                .execute(&mut **conn)
                .await?;
        }
        done
    }

    async fn run_steps(&self, part: &str, steps: &[Migration]) -> Result<(), DbError> {
        ensure_numbered(steps)?;
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
                Some(step) if step.checksum() != checksum => "it was changed after it was run",
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
        let done =
            sqlx::query("SELECT version FROM schema_migrations WHERE part = $1 AND version = $2")
                .bind(part)
                .bind(i64::from(step.version))
                .fetch_optional(tx.conn())
                .await?;
        if done.is_some() {
            return Ok(());
        }
        for statement in statements(step.sql) {
            // Our own text, out of a constant.
            sqlx::query(AssertSqlSafe(statement))
                .execute(tx.conn())
                .await
                .map_err(|error| DbError::Migration {
                    version: i64::from(step.version),
                    name: step.name.to_owned(),
                    problem: error.to_string(),
                })?;
        }
        sqlx::query(
            "INSERT INTO schema_migrations (part, version, name, checksum) VALUES ($1, $2, $3, $4)",
        )
        .bind(part)
        .bind(i64::from(step.version))
        .bind(step.name)
        .bind(step.checksum())
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

impl Migration {
    /// FNV-1a over the text: it guards against slips, not against malice.
    fn checksum(&self) -> String {
        let hash = self
            .sql
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        format!("{hash:016x}")
    }
}

/// The statements of a migration, without comments; texts in them hold no `;`.
fn statements(sql: &str) -> Vec<String> {
    let lines = sql
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    let text: Vec<&str> = lines.collect();
    let statements = text.join("\n");
    let statements = statements.split(';').map(str::trim);
    statements
        .filter(|statement| !statement.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_may_hold_a_semicolon() {
        let sql = "-- one; two\nCREATE TABLE a (\n    -- x; y\n    b TEXT\n);\nCREATE INDEX c;\n";

        assert_eq!(
            statements(sql),
            ["CREATE TABLE a (\n    b TEXT\n)", "CREATE INDEX c"]
        );
    }
}
