//! What one transaction promises, on every database.

use ferroflow_db::signal::OUTBOX;
use ferroflow_db::testing::{each_db, sqlite_db};
use ferroflow_db::{Db, DbError, Read as _, ensure_one, outbox};
use ferroflow_types::id::EventId;
use ferroflow_types::{CloudEvent, Timestamp};
use sqlx::Row as _;
use tokio::task::JoinSet;

use crate::{MIGRATIONS, break_foreign_key, ids, insert, write};

fn event(number: u32) -> CloudEvent {
    CloudEvent {
        id: format!("00000000-0000-0000-0000-{number:012}")
            .parse::<EventId>()
            .unwrap(),
        topic: "ferroflow.test.v1".to_owned(),
        event_type: "ai.ferroflow.note.created".to_owned(),
        source: "//ferroflow/test".to_owned(),
        subject: "namespaces/default/notes/1".to_owned(),
        namespace: "default".to_owned(),
        key: "default/1".to_owned(),
        sequence: i64::from(number),
        time: Timestamp::from_millis(1),
        traceparent: None,
        authtype: None,
        authid: None,
        data: serde_json::json!({}),
    }
}

#[tokio::test]
async fn what_is_committed_can_be_read_and_what_is_dropped_cannot() {
    for test in each_db(MIGRATIONS).await {
        write(&test.db, 1).await.unwrap();

        let mut tx = test.db.begin_write().await.unwrap();
        insert(&mut tx, 2).await.unwrap();
        drop(tx);
        write(&test.db, 3).await.unwrap();

        assert_eq!(ids(&test.db).await, [1, 3], "{}", test.kind);
    }
}

#[tokio::test]
async fn a_reader_does_not_see_an_open_transaction() {
    for test in each_db(MIGRATIONS).await {
        let mut tx = test.db.begin_write().await.unwrap();
        insert(&mut tx, 1).await.unwrap();

        assert!(ids(&test.db).await.is_empty(), "{}", test.kind);
        tx.commit().await.unwrap();
        assert_eq!(ids(&test.db).await, [1], "{}", test.kind);
    }
}

/// Reads a number, and writes the next one.
async fn count(db: Db) -> Result<(), DbError> {
    let mut tx = db.begin_write().await?;
    tx.lock_row("counters", "a").await?;
    let row = sqlx::query("SELECT n FROM counters WHERE id = 'a'");
    let n: i64 = row.fetch_one(tx.conn()).await?.get("n");
    tokio::task::yield_now().await;
    let update = sqlx::query("UPDATE counters SET n = $1 WHERE id = 'a'");
    update.bind(n + 1).execute(tx.conn()).await?;
    tx.commit().await
}

#[tokio::test]
async fn a_change_of_a_locked_row_is_not_lost() {
    for test in each_db(MIGRATIONS).await {
        let mut changes = JoinSet::new();
        for _ in 0..8 {
            changes.spawn(count(test.db.clone()));
        }
        for change in changes.join_all().await {
            change.unwrap();
        }
        let mut tx = test.db.begin_read().await.unwrap();
        let row = sqlx::query("SELECT n FROM counters").fetch_one(tx.conn());
        assert_eq!(row.await.unwrap().get::<i64, _>("n"), 8, "{}", test.kind);
    }
}

#[tokio::test]
async fn a_value_that_is_taken_is_told_from_other_failures() {
    for test in each_db(MIGRATIONS).await {
        write(&test.db, 1).await.unwrap();

        let again = write(&test.db, 1).await.unwrap_err();
        let mut tx = test.db.begin_write().await.unwrap();
        let wrong = sqlx::query("INSERT INTO nowhere VALUES (1)")
            .execute(tx.conn())
            .await
            .map_err(DbError::from)
            .unwrap_err();

        assert!(
            matches!(again, DbError::UniqueViolation { .. }),
            "{again:?}"
        );
        assert!(matches!(wrong, DbError::Statement(_)), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_write_that_meets_no_row_is_a_conflict() {
    for test in each_db(MIGRATIONS).await {
        let mut tx = test.db.begin_write().await.unwrap();
        for id in [1, 2] {
            insert(&mut tx, id).await.unwrap();
        }
        let update = async |tx: &mut ferroflow_db::WriteTx, least: i64| {
            sqlx::query("UPDATE notes SET text = 'y' WHERE id >= $1")
                .bind(least)
                .execute(tx.conn())
                .await
                .unwrap()
        };

        let none = ensure_one(&update(&mut tx, 3).await, "notes");
        let one = ensure_one(&update(&mut tx, 2).await, "notes");
        let two = ensure_one(&update(&mut tx, 1).await, "notes");

        assert!(matches!(none, Err(DbError::Conflict { table: "notes" })));
        assert!(one.is_ok());
        assert!(matches!(two, Err(DbError::Inconsistent { .. })));
    }
}

#[tokio::test]
async fn a_commit_that_fails_changes_nothing_and_the_next_one_works() {
    for test in each_db(MIGRATIONS).await {
        let mut tx = test.db.begin_write().await.unwrap();
        insert(&mut tx, 1).await.unwrap();
        break_foreign_key(&mut tx).await;

        assert!(tx.commit().await.is_err(), "{}", test.kind);
        write(&test.db, 2).await.unwrap();

        assert_eq!(ids(&test.db).await, [2], "{}", test.kind);
    }
}

#[tokio::test]
async fn an_event_waits_if_and_only_if_its_transaction_happened() {
    for test in each_db(MIGRATIONS).await {
        let mut dropped = test.db.begin_write().await.unwrap();
        dropped.publish(&event(1)).await.unwrap();
        drop(dropped);
        let mut kept = test.db.begin_write().await.unwrap();
        kept.publish(&event(2)).await.unwrap();
        kept.commit().await.unwrap();

        let waiting = outbox::waiting(&test.db, 10).await.unwrap();
        assert_eq!(waiting, [event(2)], "{}", test.kind);
        outbox::remove(&test.db, &waiting).await.unwrap();
        assert!(outbox::waiting(&test.db, 10).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_hears_of_a_commit_whose_caller_stopped_waiting() {
    for test in each_db(MIGRATIONS).await {
        let mut signal = test.db.signals().subscribe(OUTBOX);
        let mut tx = test.db.begin_write().await.unwrap();
        tx.publish(&event(1)).await.unwrap();

        // Polled once, which starts it, and then given up.
        let begun = tokio::time::timeout(std::time::Duration::ZERO, tx.commit()).await;
        let signalled = tokio::time::timeout(std::time::Duration::from_secs(10), signal.changed());

        signalled
            .await
            .unwrap_or_else(|_| panic!("{begun:?} on {}", test.kind));
        assert_eq!(outbox::waiting(&test.db, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_path_may_hold_what_means_something_in_a_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("100%25 done? #1.db");

    let db = Db::open(&format!("sqlite:{}", path.display()), MIGRATIONS)
        .await
        .unwrap();
    write(&db, 1).await.unwrap();

    assert_eq!(ids(&db).await, [1]);
    assert!(path.exists());
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable() {
    let test = sqlite_db(MIGRATIONS).await;
    let nowhere = format!("{}/nowhere/x.db", test.url);

    for url in [nowhere.as_str(), "postgres://127.0.0.1:1/x"] {
        let Err(error) = Db::open(url, MIGRATIONS).await else {
            panic!("{url} was opened")
        };
        assert!(matches!(error, DbError::Unavailable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_nul_in_a_text_is_the_callers_fault_where_it_cannot_be_stored() {
    for test in ferroflow_db::testing::each_db(MIGRATIONS).await {
        let mut tx = test.db.begin_write().await.unwrap();
        let insert = sqlx::query("INSERT INTO notes (id, text) VALUES (7, $1)").bind("a\0b");
        let done = insert.execute(tx.conn()).await.map_err(DbError::from);
        match test.kind {
            "postgresql" => assert!(matches!(done, Err(DbError::Nul)), "{done:?}"),
            _ => assert!(done.is_ok(), "{done:?}"),
        }
    }
}
