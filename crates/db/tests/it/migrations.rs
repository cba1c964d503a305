//! Migrations: run once, in order, and refused when they do not fit.

use ferroflow_db::testing::each_db;
use ferroflow_db::{Db, DbError, Migration, Read as _, Sql};

use crate::{MIGRATIONS, ids, write};

const EDITED: &[Migration] = &[Migration {
    version: 1,
    name: "notes",
    sql: Sql::Both("CREATE TABLE notes (id BIGINT PRIMARY KEY);"),
}];

const BROKEN: &[Migration] = &[
    MIGRATIONS[0],
    Migration {
        version: 2,
        name: "broken",
        sql: Sql::Both(
            "CREATE TABLE more (id BIGINT PRIMARY KEY); CREATE TABLE notes (id BIGINT);",
        ),
    },
];

const MENDED: &[Migration] = &[
    MIGRATIONS[0],
    Migration {
        version: 2,
        name: "mended",
        sql: Sql::Both("CREATE TABLE more (id BIGINT PRIMARY KEY);"),
    },
];

const GAP: &[Migration] = &[
    MIGRATIONS[0],
    Migration {
        version: 3,
        name: "gap",
        sql: Sql::Both("CREATE TABLE more (id BIGINT PRIMARY KEY);"),
    },
];

async fn refused(url: &str, migrations: &'static [Migration]) -> String {
    match Db::open(url, migrations).await {
        Err(error @ DbError::Migration { .. }) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[tokio::test]
async fn a_database_of_a_newer_program_or_an_edited_migration_is_refused() {
    for test in each_db(MIGRATIONS).await {
        let newer = refused(&test.url, &[]).await;
        let edited = refused(&test.url, EDITED).await;
        let gap = refused(&test.url, GAP).await;

        assert!(newer.contains("newer version"), "{newer}");
        assert!(edited.contains("changed after it was run"), "{edited}");
        assert!(gap.contains("without gaps"), "{gap}");
    }
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind() {
    for test in each_db(MIGRATIONS).await {
        write(&test.db, 1).await.unwrap();

        let broken = refused(&test.url, BROKEN).await;
        assert!(broken.contains("migration 2 (broken)"), "{broken}");

        // Its first table would be in the way.
        let again = Db::open(&test.url, MENDED).await.unwrap();
        assert_eq!(ids(&again).await, [1], "{}", test.kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_migrate_once() {
    for test in each_db(MIGRATIONS).await {
        let opened: Vec<_> = (0..4)
            .map(|_| {
                let url = test.url.clone();
                tokio::spawn(async move { Db::open(&url, MENDED).await.map(|_| ()) })
            })
            .collect();

        for one in opened {
            one.await
                .unwrap()
                .unwrap_or_else(|error| panic!("{error} on {}", test.kind));
        }
    }
}

const EACH: &[Migration] = &[
    MIGRATIONS[0],
    Migration {
        version: 2,
        name: "each its own",
        sql: Sql::PerDatabase {
            sqlite: "CREATE TABLE own (kind TEXT); CREATE TRIGGER said AFTER INSERT ON own BEGIN \
                     UPDATE own SET kind = 'sqlite'; END; INSERT INTO own (kind) VALUES ('x');",
            postgres: "CREATE TABLE own (kind TEXT); DO $$ BEGIN \
                       INSERT INTO own (kind) VALUES ('postgresql'); END; $$;",
        },
    },
];

#[tokio::test]
async fn a_database_runs_the_statements_of_its_kind_and_knows_them_again() {
    for test in each_db(EACH).await {
        let mut tx = test.db.begin_read().await.unwrap();
        let query = sqlx::query_scalar("SELECT kind FROM own");
        let found: String = query.fetch_one(tx.conn()).await.unwrap();
        assert_eq!(found, test.kind);

        assert!(Db::open(&test.url, EACH).await.is_ok(), "{}", test.kind);
    }
}
