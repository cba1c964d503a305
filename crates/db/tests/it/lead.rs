//! Work under a lease: one process at a time, and the next one soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferroflow_db::lead::run_as_leader;
use ferroflow_db::testing::each_db;
use ferroflow_db::{Db, DbError};
use tokio_util::sync::CancellationToken;

use crate::{MIGRATIONS, ids, insert};

const LIMIT: Duration = Duration::from_secs(20);

/// Holds the lease until it is stopped, and counts who does.
async fn hold(db: Db, holder: &str, stop: CancellationToken, holders: Arc<AtomicUsize>) {
    let held = run_as_leader(db, "work", holder, stop, |lead| {
        let holders = Arc::clone(&holders);
        async move {
            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two at once");
            lead.stop.cancelled().await;
            holders.fetch_sub(1, Ordering::SeqCst);
            Ok::<(), DbError>(())
        }
    });
    held.await.unwrap();
}

async fn until(what: &str, predicate: impl Fn() -> bool) {
    let waited = async {
        while !predicate() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, waited).await;
    assert!(waited.is_ok(), "{what}");
}

#[tokio::test]
async fn a_lease_that_is_given_back_goes_to_the_next_at_once() {
    for test in each_db(MIGRATIONS).await {
        let holders = Arc::<AtomicUsize>::default();
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        let hold = |holder: &'static str, stop: &CancellationToken| {
            let (db, stop, holders) = (test.db.clone(), stop.clone(), Arc::clone(&holders));
            tokio::spawn(async move { hold(db, holder, stop, holders).await })
        };
        let leaving = hold("a", &first);
        until("a holds it", || holders.load(Ordering::SeqCst) == 1).await;
        let staying = hold("b", &second);

        first.cancel();
        leaving.await.unwrap();
        until("b holds it", || holders.load(Ordering::SeqCst) == 1).await;
        second.cancel();
        staying.await.unwrap();
    }
}

#[tokio::test]
async fn who_was_slow_writes_nothing_after_the_next_has_begun() {
    for test in each_db(MIGRATIONS).await {
        let stop = CancellationToken::new();
        let slow = run_as_leader(test.db.clone(), "work", "slow", stop.clone(), |lead| {
            let db = test.db.clone();
            async move {
                // Its lease is taken as if it had run out long ago.
                let mut tx = db.begin_write().await?;
                let later = ferroflow_types::Timestamp::from_millis(i64::MAX / 2);
                ferroflow_db::lease::acquire(&mut tx, "work", "next", later, LIMIT).await?;
                tx.commit().await?;

                let mut tx = db.begin_write().await?;
                insert(&mut tx, 1).await?;
                let guarded = lead.guard(&mut tx).await;
                assert!(matches!(guarded, Err(DbError::Conflict { .. })));
                Ok::<(), DbError>(())
            }
        });
        slow.await.unwrap();
        assert!(ids(&test.db).await.is_empty());
    }
}
