//! Writers on SQLite that share a flush: whom it helps, and whom it must not harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferroflow_db::testing::sqlite_db;
use ferroflow_db::{Db, DbError, WriteTx};
use tokio::task::JoinHandle;

use crate::{MIGRATIONS, break_foreign_key, ids, insert, write};

/// Rounds of one writer that is cut off and one that is not.
const ROUNDS: i64 = 200;

/// Transactions that are timed, and writers that share them.
const WRITES: i64 = 512;
const WRITERS: i64 = 32;

/// A writer that stands in line by the time this returns.
async fn queue_writer(db: &Db) -> JoinHandle<Result<WriteTx, DbError>> {
    let writer = tokio::spawn({
        let db = db.clone();
        async move { db.begin_write().await }
    });
    // On a runtime of one thread it has gone as far as it can once it was its turn.
    tokio::task::yield_now().await;
    writer
}

/// A commit in a task of its own, and whether it is over.
fn commit(tx: WriteTx) -> (JoinHandle<Result<(), DbError>>, Arc<AtomicBool>) {
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&over);
    let task = tokio::spawn(async move {
        let result = tx.commit().await;
        done.store(true, Ordering::SeqCst);
        result
    });
    (task, over)
}

#[tokio::test]
async fn a_commit_waits_for_the_flush_that_it_shares_with_the_next_in_line() {
    let test = sqlite_db(MIGRATIONS).await;
    let mut first = test.db.begin_write().await.unwrap();
    insert(&mut first, 1).await.unwrap();
    let second = queue_writer(&test.db).await;

    let (first, first_is_over) = commit(first);
    // The second has its turn, so the first has given the connection on.
    let mut second = second.await.unwrap().unwrap();
    insert(&mut second, 2).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    assert!(!first_is_over.load(Ordering::SeqCst));
    assert!(ids(&test.db).await.is_empty());
    second.commit().await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(ids(&test.db).await, [1, 2]);
}

#[tokio::test]
async fn a_flush_that_fails_fails_everybody_who_shares_it() {
    let test = sqlite_db(MIGRATIONS).await;
    let mut first = test.db.begin_write().await.unwrap();
    insert(&mut first, 1).await.unwrap();
    let second = queue_writer(&test.db).await;

    let (first, _) = commit(first);
    let mut second = second.await.unwrap().unwrap();
    insert(&mut second, 2).await.unwrap();
    break_foreign_key(&mut second).await;

    assert!(second.commit().await.is_err());
    assert!(first.await.unwrap().is_err());
    assert!(ids(&test.db).await.is_empty());
    write(&test.db, 3).await.unwrap();
    assert_eq!(ids(&test.db).await, [3]);
}

#[tokio::test]
async fn a_writer_that_gives_up_takes_back_only_what_it_did() {
    let test = sqlite_db(MIGRATIONS).await;
    let mut first = test.db.begin_write().await.unwrap();
    insert(&mut first, 1).await.unwrap();
    let second = queue_writer(&test.db).await;

    let (first, _) = commit(first);
    let mut second = second.await.unwrap().unwrap();
    insert(&mut second, 2).await.unwrap();
    let third = queue_writer(&test.db).await;
    drop(second);
    let mut third = third.await.unwrap().unwrap();
    insert(&mut third, 3).await.unwrap();
    third.commit().await.unwrap();

    first.await.unwrap().unwrap();
    assert_eq!(ids(&test.db).await, [1, 3]);
}

#[tokio::test]
async fn a_commit_ends_although_the_last_in_line_gave_up_and_nobody_follows() {
    let test = sqlite_db(MIGRATIONS).await;
    let first = test.db.begin_write().await.unwrap();
    let second = queue_writer(&test.db).await;

    let (first, _) = commit(first);
    drop(second.await.unwrap().unwrap());

    let done = tokio::time::timeout(Duration::from_secs(10), first).await;
    done.expect("somebody flushes").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_transaction_undoes_it_and_the_next_one_works() {
    let test = sqlite_db(MIGRATIONS).await;
    let db = test.db.clone();

    let panicked = tokio::spawn(async move {
        let mut tx = db.begin_write().await.unwrap();
        insert(&mut tx, 1).await.unwrap();
        panic!("on purpose")
    });

    assert!(panicked.await.unwrap_err().is_panic());
    write(&test.db, 2).await.unwrap();
    assert_eq!(ids(&test.db).await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_whose_statement_fails_takes_no_other_of_its_group_with_it() {
    let test = sqlite_db(MIGRATIONS).await;
    write(&test.db, 0).await.unwrap();

    let tasks: Vec<_> = (0..100)
        .map(|id| {
            let db = test.db.clone();
            // Every tenth one meets the row that is there already.
            tokio::spawn(async move { write(&db, if id % 10 == 0 { 0 } else { id }).await })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => {}
            Err(DbError::UniqueViolation { .. }) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }

    assert_eq!(failed, 10);
    assert_eq!(ids(&test.db).await.len(), 91);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_cut_off_anywhere_neither_wedge_the_others_nor_undo_them() {
    let test = sqlite_db(MIGRATIONS).await;
    let mut cut = 0;

    for round in 0..ROUNDS {
        let patient = tokio::spawn({
            let db = test.db.clone();
            async move { write(&db, round).await }
        });
        // From before its turn to after its commit.
        let limit = Duration::from_micros(20 * u64::try_from(round).unwrap());
        let impatient = tokio::time::timeout(limit, write(&test.db, 1000 + round)).await;
        cut += i64::from(impatient.is_err());
        if let Ok(done) = impatient {
            done.unwrap();
        }
        let done = tokio::time::timeout(Duration::from_secs(10), patient).await;
        done.expect("the writer is not wedged").unwrap().unwrap();
    }

    let kept = ids(&test.db).await;
    println!("{cut} of {ROUNDS} writers were cut off");
    assert!(cut > 0);
    assert!((0..ROUNDS).all(|id| kept.contains(&id)));
    // Whoever was told that it is done is there; whoever was cut off may be.
    let impatient = i64::try_from(kept.len()).unwrap() - ROUNDS;
    assert!(impatient >= ROUNDS - cut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_are_much_quicker_than_one_after_the_other() {
    let test = sqlite_db(MIGRATIONS).await;
    let start = Instant::now();
    for id in 0..WRITES {
        write(&test.db, id).await.unwrap();
    }
    let alone = start.elapsed();

    let start = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let db = test.db.clone();
            tokio::spawn(async move {
                for number in 0..WRITES / WRITERS {
                    write(&db, WRITES + writer * WRITES + number).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let together = start.elapsed();

    let ratio = alone.as_secs_f64() / together.as_secs_f64();
    println!(
        "{WRITES} commits: one writer {alone:?}, {WRITERS} writers {together:?}: {ratio:.1} x"
    );
    let flush = alone / u32::try_from(WRITES).unwrap();
    if flush > Duration::from_micros(300) {
        assert!(ratio > 2.0, "{ratio}");
    } else {
        println!("not compared: a flush costs next to nothing here ({flush:?} a commit)");
    }
}
