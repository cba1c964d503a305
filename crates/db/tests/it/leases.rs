//! Leases: one holder at a time, and none of its predecessors.

use std::time::Duration;

use ferroflow_db::lease::{self, Fence};
use ferroflow_db::testing::each_db;
use ferroflow_db::{Db, DbError};
use ferroflow_types::Timestamp;

use crate::{MIGRATIONS, ids, insert};

const LENGTH: Duration = Duration::from_millis(100);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

async fn acquire(db: &Db, holder: &str, now: i64) -> Option<Fence> {
    let mut tx = db.begin_write().await.unwrap();
    let fence = lease::acquire(&mut tx, "relay", holder, at(now), LENGTH)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    fence
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_runs_out() {
    for test in each_db(MIGRATIONS).await {
        let first = acquire(&test.db, "a", 0).await.unwrap();

        assert_eq!(acquire(&test.db, "b", 99).await, None, "{}", test.kind);
        let second = acquire(&test.db, "b", 100).await.unwrap();
        assert!(second > first);
        assert_eq!(acquire(&test.db, "a", 150).await, None);
    }
}

#[tokio::test]
async fn a_restarted_holder_has_its_lease_at_once_under_a_new_fence() {
    for test in each_db(MIGRATIONS).await {
        let before = acquire(&test.db, "a", 0).await.unwrap();
        let after = acquire(&test.db, "a", 1).await.unwrap();

        assert!(after > before, "{}", test.kind);
    }
}

#[tokio::test]
async fn a_lease_that_is_renewed_does_not_run_out_and_one_given_back_is_free() {
    for test in each_db(MIGRATIONS).await {
        let fence = acquire(&test.db, "a", 0).await.unwrap();
        let mut tx = test.db.begin_write().await.unwrap();
        lease::renew(&mut tx, "relay", fence, at(90), LENGTH)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(acquire(&test.db, "b", 189).await, None, "{}", test.kind);

        let mut tx = test.db.begin_write().await.unwrap();
        lease::release(&mut tx, "relay", fence).await.unwrap();
        tx.commit().await.unwrap();

        let next = acquire(&test.db, "b", 189).await.unwrap();
        assert!(next > fence);
    }
}

#[tokio::test]
async fn a_stale_holder_can_neither_write_nor_renew_nor_give_back() {
    for test in each_db(MIGRATIONS).await {
        let stale = acquire(&test.db, "a", 0).await.unwrap();
        let holder = acquire(&test.db, "b", 100).await.unwrap();

        let mut tx = test.db.begin_write().await.unwrap();
        insert(&mut tx, 1).await.unwrap();
        let guarded = lease::guard(&mut tx, "relay", stale).await;
        assert!(matches!(guarded, Err(DbError::Conflict { .. })));
        drop(tx);
        let mut tx = test.db.begin_write().await.unwrap();
        let renewed = lease::renew(&mut tx, "relay", stale, at(101), LENGTH).await;
        assert!(matches!(renewed, Err(DbError::Conflict { .. })));
        drop(tx);
        let mut tx = test.db.begin_write().await.unwrap();
        lease::release(&mut tx, "relay", stale).await.unwrap();
        insert(&mut tx, 2).await.unwrap();
        lease::guard(&mut tx, "relay", holder).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(ids(&test.db).await, [2], "{}", test.kind);
        assert_eq!(acquire(&test.db, "c", 101).await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_reach_for_a_free_lease_at_once_one_gets_it() {
    for test in each_db(MIGRATIONS).await {
        let tasks: Vec<_> = (0..16)
            .map(|number| {
                let db = test.db.clone();
                tokio::spawn(async move { acquire(&db, &format!("holder-{number}"), 0).await })
            })
            .collect();
        let mut holders = 0;
        for task in tasks {
            holders += i32::from(task.await.unwrap().is_some());
        }

        assert_eq!(holders, 1, "{}", test.kind);
    }
}

#[tokio::test]
async fn leases_that_ran_out_are_found_by_the_beginning_of_their_name() {
    for test in each_db(MIGRATIONS).await {
        let fence = acquire(&test.db, "a", 0).await.unwrap();
        let mut tx = test.db.begin_write().await.unwrap();
        assert!(lease::is_held(&mut tx, "relay", at(99)).await.unwrap());
        assert!(!lease::is_held(&mut tx, "relay", at(100)).await.unwrap());
        let none = lease::expired(&mut tx, "rel", at(99)).await.unwrap();
        assert!(none.is_empty(), "{}", test.kind);
        let found = lease::expired(&mut tx, "rel", at(100)).await.unwrap();
        assert_eq!(found, ["relay"]);
        let other = lease::expired(&mut tx, "x", at(100)).await.unwrap();
        assert!(other.is_empty());

        lease::delete_expired(&mut tx, "relay", at(100))
            .await
            .unwrap();
        lease::renew(&mut tx, "relay", fence, at(100), LENGTH)
            .await
            .unwrap();
        lease::delete_expired(&mut tx, "relay", at(201))
            .await
            .unwrap();
        let renewed = lease::renew(&mut tx, "relay", fence, at(201), LENGTH).await;
        assert!(matches!(renewed, Err(DbError::Conflict { .. })));
    }
}
