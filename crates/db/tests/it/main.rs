//! What the database promises, on real ones: SQLite always, PostgreSQL when `DATABASE_URL` names it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

mod lead;
mod leases;
mod lists;
mod migrations;
mod sharing;
mod signals;
mod transactions;

use ferroflow_db::{Db, DbError, Migration, Read as _, Sql};
use sqlx::Row as _;

/// The second table's references are checked at the end of a transaction, which lets a test make a
/// commit fail.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "notes",
    sql: Sql::Both(
        "CREATE TABLE notes (id BIGINT PRIMARY KEY, text TEXT NOT NULL);\n\
          CREATE TABLE replies (id BIGINT PRIMARY KEY, note BIGINT NOT NULL \
          REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED);\n\
          CREATE TABLE counters (id TEXT PRIMARY KEY, n BIGINT NOT NULL);\n\
          INSERT INTO counters (id, n) VALUES ('a', 0);",
    ),
}];

/// A transaction of one note.
async fn write(db: &Db, id: i64) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    insert(&mut tx, id).await?;
    tx.commit().await
}

async fn insert(tx: &mut ferroflow_db::WriteTx, id: i64) -> Result<(), DbError> {
    sqlx::query("INSERT INTO notes (id, text) VALUES ($1, $2)")
        .bind(id)
        .bind("x")
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// A reply to nothing: the transaction cannot be committed.
async fn break_foreign_key(tx: &mut ferroflow_db::WriteTx) {
    sqlx::query("INSERT INTO replies (id, note) VALUES (1, -1)")
        .execute(tx.conn())
        .await
        .unwrap();
}

async fn ids(db: &Db) -> Vec<i64> {
    let mut tx = db.begin_read().await.unwrap();
    let rows = sqlx::query("SELECT id FROM notes ORDER BY id")
        .fetch_all(tx.conn())
        .await
        .unwrap();
    rows.iter().map(|row| row.get("id")).collect()
}
