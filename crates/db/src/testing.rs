//! Databases for tests: SQLite always, PostgreSQL when `DATABASE_URL` names a server.
//!
//! Each is empty but for the migrations and belongs to one test: a file in a folder that goes with
//! it, or a schema of its own (which stays: name a server that is thrown away). What is skipped is
//! printed; `FERROFLOW_TEST_REQUIRE=postgres` makes it a failure.

use std::sync::atomic::{AtomicU64, Ordering};

use ferroflow_types::Clock as _;
use ferroflow_types::time::SystemClock;
use sqlx::AssertSqlSafe;

use crate::{Db, Migration, Read as _};

/// Tells apart the schemas of one process.
static SCHEMAS: AtomicU64 = AtomicU64::new(0);

/// A database that goes with its test.
pub struct TestDb {
    /// Which kind it is, for messages.
    pub kind: &'static str,
    /// Opens it once more.
    pub url: String,
    /// The database.
    pub db: Db,
    _folder: Option<tempfile::TempDir>,
}

/// An empty SQLite database.
pub async fn sqlite_db(migrations: &'static [Migration]) -> TestDb {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let url = format!("sqlite:{}", folder.path().join("test.db").display());
    let db = Db::open(&url, migrations)
        .await
        .expect("an empty database can be opened");
    TestDb {
        kind: "sqlite",
        url,
        db,
        _folder: Some(folder),
    }
}

/// An empty database of every kind at hand.
pub async fn each_db(migrations: &'static [Migration]) -> Vec<TestDb> {
    let mut found = vec![sqlite_db(migrations).await];
    found.extend(postgres_db(migrations).await);
    found
}

#[expect(clippy::print_stdout, reason = "a test says what it skips")]
async fn postgres_db(migrations: &'static [Migration]) -> Option<TestDb> {
    let Ok(server) = std::env::var("DATABASE_URL") else {
        let required = std::env::var("FERROFLOW_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|one| one == "postgres"),
            "FERROFLOW_TEST_REQUIRE asks for PostgreSQL, and DATABASE_URL names none"
        );
        println!("skipped on PostgreSQL: DATABASE_URL is not set");
        return None;
    };
    let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
    let now = SystemClock.now().millis();
    let schema = format!("test_{}_{now}_{number}", std::process::id());
    let server_db = Db::open(&server, &[])
        .await
        .expect("DATABASE_URL can be opened");
    let mut tx = server_db.begin_write().await.expect("DATABASE_URL answers");
    // Made of numbers.
    sqlx::query(AssertSqlSafe(format!("CREATE SCHEMA {schema}")))
        .execute(tx.conn())
        .await
        .expect("a schema can be made");
    tx.commit().await.expect("a schema can be made");
    let sign = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{sign}options=-c%20search_path%3D{schema}");
    let db = Db::open(&url, migrations)
        .await
        .expect("an empty schema can be opened");
    Some(TestDb {
        kind: "postgresql",
        url,
        db,
        _folder: None,
    })
}
