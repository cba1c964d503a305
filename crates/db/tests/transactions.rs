//! What transactions promise, on a real SQLite file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferroflow_db::{Db, DbError, Migration, Read as _};
use sqlx::Row as _;

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "notes",
    sql: "CREATE TABLE notes (id BIGINT PRIMARY KEY, text TEXT NOT NULL);",
}];

async fn database() -> (tempfile::TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("test.db").display());
    let db = Db::open(&url, MIGRATIONS).await.unwrap();
    (folder, db)
}

async fn write(db: &Db, id: i64) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    sqlx::query("INSERT INTO notes (id, text) VALUES ($1, $2)")
        .bind(id)
        .bind("x")
        .execute(tx.conn())
        .await?;
    tx.commit().await
}

async fn count(db: &Db) -> i64 {
    let mut tx = db.begin_read().await.unwrap();
    let row = sqlx::query("SELECT count(*) AS n FROM notes")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    row.get("n")
}

#[tokio::test]
async fn what_is_committed_can_be_read_and_what_is_dropped_cannot() {
    let (_folder, db) = database().await;
    write(&db, 1).await.unwrap();

    let mut tx = db.begin_write().await.unwrap();
    sqlx::query("INSERT INTO notes (id, text) VALUES (2, 'y')")
        .execute(tx.conn())
        .await
        .unwrap();
    drop(tx);
    write(&db, 3).await.unwrap();

    assert_eq!(count(&db).await, 2);
}

#[tokio::test]
async fn a_reader_does_not_see_an_open_transaction() {
    let (_folder, db) = database().await;

    let mut tx = db.begin_write().await.unwrap();
    sqlx::query("INSERT INTO notes (id, text) VALUES (1, 'x')")
        .execute(tx.conn())
        .await
        .unwrap();

    assert_eq!(count(&db).await, 0);
    tx.commit().await.unwrap();
    assert_eq!(count(&db).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_fails_takes_no_other_of_its_group_with_it() {
    let (_folder, db) = database().await;
    write(&db, 0).await.unwrap();

    let tasks: Vec<_> = (0..100)
        .map(|id| {
            let db = db.clone();
            // Every tenth one meets the row that is there already.
            tokio::spawn(async move { write(&db, if id % 10 == 0 { 0 } else { id }).await })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => {}
            Err(DbError::Taken { .. }) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }

    assert_eq!(failed, 10);
    assert_eq!(count(&db).await, 91);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_stop_waiting_do_not_wedge_the_others() {
    let (_folder, db) = database().await;

    for round in 0..50_i64 {
        let impatient = tokio::spawn({
            let db = db.clone();
            async move { write(&db, 1000 + round).await }
        });
        let patient = tokio::spawn({
            let db = db.clone();
            async move { write(&db, round).await }
        });
        impatient.abort();
        let done = tokio::time::timeout(Duration::from_secs(10), patient).await;
        done.expect("the writer is not wedged").unwrap().unwrap();
    }

    assert!(count(&db).await >= 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_wait_share_a_flush() {
    const WRITES: i64 = 256;
    let (_folder, db) = database().await;
    let start = Instant::now();
    for id in 0..WRITES {
        write(&db, id).await.unwrap();
    }
    let alone = start.elapsed();

    let start = Instant::now();
    let db = Arc::new(db);
    let tasks: Vec<_> = (0..WRITES)
        .map(|id| {
            let db = Arc::clone(&db);
            tokio::spawn(async move { write(&db, WRITES + id).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let together = start.elapsed();

    println!("{WRITES} commits: one by one {alone:?}, together {together:?}");
    assert_eq!(count(&db).await, 2 * WRITES);
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let (folder, db) = database().await;
    drop(db);
    let url = format!("sqlite:{}", folder.path().join("test.db").display());

    let Err(error) = Db::open(&url, &[]).await else {
        panic!("it was opened")
    };

    assert!(error.to_string().contains("newer version"), "{error}");
}
