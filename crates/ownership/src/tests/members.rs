//! Leases of replicas, and what is taken from those that have run out.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_db::lease::LEASE_DURATION;
use ferroflow_db::{Db, Read as _};
use ferroflow_types::id::RandomIds;
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Clock as _, Timestamp};
use sqlx::Row as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::toy::{
    Counters, FINISH, Id, ManualClock, QUICK_TIMING, Request, each_db, eventually, idle_replica,
    insert, member, owner_of, stored, write,
};
use crate::member::Timing;
use crate::{Member, Owned as _, Ownership, request};

async fn execute(db: &Db, statement: &'static str) {
    let mut tx = db.begin_write().await.unwrap();
    sqlx::query(statement).execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn ask(db: &Db, now: Timestamp) {
    let (id, request) = (Uuid::new_v4(), Request::Finish);
    let mut tx = db.begin_write().await.unwrap();
    let asked = request::insert::<Counters>(&mut tx, id, Id(1), &request, now);
    asked.await.unwrap();
    tx.commit().await.unwrap();
}

async fn leases(db: &Db) -> Vec<String> {
    let mut tx = db.begin_read().await.unwrap();
    let query = sqlx::query("SELECT name FROM leases ORDER BY name");
    let rows = query.fetch_all(tx.conn()).await.unwrap();
    rows.iter().map(|row| row.get("name")).collect()
}

#[tokio::test]
async fn objects_are_taken_over_when_the_lease_has_run_out_and_not_before() {
    for test in each_db().await {
        let clock = ManualClock::new();
        let (a, b) = (
            idle_replica(&test.db, &clock, "a"),
            idle_replica(&test.db, &clock, "b"),
        );
        a.enter().await.unwrap();
        let fence = b.enter().await.unwrap();
        for number in 1..=3 {
            insert(&test.db, Id(number), "a").await;
        }

        clock.advance(LEASE_DURATION.saturating_sub(Duration::from_millis(1)));
        b.member().renew(fence).await.unwrap();
        assert!(b.take_over(10).await.unwrap().claims.is_empty());
        clock.advance(Duration::from_millis(1));
        let taken = b.take_over(2).await.unwrap();

        let keys: Vec<_> = taken.claims.iter().map(|claim| claim.key).collect();
        assert_eq!(keys, [Id(1), Id(2)], "{}", test.kind);
        assert!(taken.has_more);
        assert_eq!(owner_of(&test.db, Id(2)).await, "b");
        assert_eq!(owner_of(&test.db, Id(3)).await, "a");
        let own_claims = b.own_claims().await.unwrap();
        assert_eq!(own_claims, taken.claims);
        // Without room nothing is taken, and it is known that there is something.
        let none = b.take_over(0).await.unwrap();
        assert!(none.claims.is_empty() && none.has_more);
    }
}

#[tokio::test]
async fn a_replica_that_renews_too_late_begins_again_under_a_higher_fence() {
    for test in each_db().await {
        let clock = ManualClock::new();
        let (a, b) = (
            idle_replica(&test.db, &clock, "a"),
            idle_replica(&test.db, &clock, "b"),
        );
        let first = a.enter().await.unwrap().unwrap();
        let mut tx = test.db.begin_write().await.unwrap();
        assert!(b.member().is_other_alive(&mut tx, "a").await.unwrap());
        assert!(!a.member().is_other_alive(&mut tx, "a").await.unwrap());
        assert!(!b.member().is_other_alive(&mut tx, "").await.unwrap());
        drop(tx);

        let same = a.member().renew(Some(first)).await.unwrap();
        assert_eq!(same, Some(first), "{}", test.kind);
        execute(&test.db, "UPDATE leases SET fence = fence + 5").await;
        let again = a.member().renew(Some(first)).await.unwrap().unwrap();

        assert!(again > first, "{}", test.kind);
    }
}

#[tokio::test]
async fn a_replica_that_leaves_gives_everything_back_at_once() {
    for test in each_db().await {
        let clock = ManualClock::new();
        let (a, b) = (
            idle_replica(&test.db, &clock, "a"),
            idle_replica(&test.db, &clock, "b"),
        );
        a.enter().await.unwrap();
        insert(&test.db, Id(1), "a").await;
        let mut unowned = test.db.signals().subscribe(Counters::TOPICS.unowned);

        assert_eq!(a.leave().await.unwrap(), 1, "{}", test.kind);

        unowned.changed().await;
        let mut tx = test.db.begin_read().await.unwrap();
        assert!(!b.member().is_other_alive(&mut tx, "a").await.unwrap());
        drop(tx);
        let taken = b.take_new(10).await.unwrap();
        assert_eq!(taken.claims.len(), 1, "{}", test.kind);
        // What it was made the owner of while it left is found by the lease that has run out.
        insert(&test.db, Id(2), "a").await;
        assert_eq!(b.take_over(10).await.unwrap().claims.len(), 1);
    }
}

#[tokio::test]
async fn a_new_object_has_no_owner_while_older_ones_wait_or_the_replica_stops() {
    for test in each_db().await {
        let a = idle_replica(&test.db, &ManualClock::new(), "a");
        assert_eq!(a.owner_of_new(), "a", "{}", test.kind);

        let mut unowned = test.db.signals().subscribe(Counters::TOPICS.unowned);
        let mut tx = test.db.begin_write().await.unwrap();
        a.signal_unowned(&mut tx);
        tx.commit().await.unwrap();
        unowned.changed().await;
        assert_eq!(a.owner_of_new(), "", "{}", test.kind);

        a.clear_backlog();
        assert_eq!(a.owner_of_new(), "a");
        a.set_load(10);
        assert_eq!(a.owner_of_new(), "");
        a.set_load(9);
        a.stop();
        assert_eq!(a.owner_of_new(), "", "{}", test.kind);
    }
}

#[tokio::test]
async fn a_replica_that_comes_back_under_its_name_finds_what_it_had() {
    for test in each_db().await {
        let clock = ManualClock::new();
        let first = idle_replica(&test.db, &clock, "a");
        first.enter().await.unwrap();
        let before = insert(&test.db, Id(1), "a").await;

        let second = idle_replica(&test.db, &clock, "a");
        second.enter().await.unwrap();
        let taken = second.take_new(10).await.unwrap();

        assert_eq!(taken.claims.len(), 1, "{}", test.kind);
        assert!(taken.claims[0].fence > before.fence);
    }
}

#[tokio::test]
async fn leases_long_past_are_forgotten_unless_something_is_still_owned() {
    for test in each_db().await {
        let clock = ManualClock::new();
        for (number, id) in [(1, "a"), (2, "b")] {
            idle_replica(&test.db, &clock, id).enter().await.unwrap();
            insert(&test.db, Id(number), id).await;
        }
        let mut tx = test.db.begin_write().await.unwrap();
        let ended = crate::Claim::first(Id(2));
        assert!(write(&mut tx, FINISH, ended).await);
        tx.commit().await.unwrap();
        ask(&test.db, clock.now()).await;
        clock.advance(Duration::from_hours(2));
        ask(&test.db, clock.now()).await;
        let c = idle_replica(&test.db, &clock, "c");
        c.enter().await.unwrap();

        c.forget().await.unwrap();

        assert_eq!(leases(&test.db).await, ["replica/a", "replica/c"]);
        assert_eq!(stored(&test.db).await, 1, "{}", test.kind);
    }
}

#[tokio::test]
async fn a_replica_that_is_alone_has_no_lease_and_takes_what_anybody_had() {
    for test in each_db().await.into_iter().take(1) {
        insert(&test.db, Id(1), "somebody").await;
        let member = Member::new(test.db.clone(), Arc::new(SystemClock), "a".to_owned());
        assert!(member.is_alone());
        let (alone, _inbox) = Ownership::<Counters>::new(Arc::new(member), Arc::new(RandomIds), 10);

        assert_eq!(alone.enter().await.unwrap(), None);
        assert!(leases(&test.db).await.is_empty());
        assert!(alone.take_over(10).await.unwrap().claims.is_empty());
        assert_eq!(alone.take_new(10).await.unwrap().claims.len(), 1);

        let stop = CancellationToken::new();
        stop.cancel();
        let waited = Arc::clone(alone.member()).keep_alive(None, stop).await;
        assert!(waited.is_ok());
        assert_eq!(alone.leave().await.unwrap(), 1);
        assert!(leases(&test.db).await.is_empty());
    }
}

#[tokio::test]
async fn a_replica_that_could_not_renew_judges_nobody_until_a_lease_has_passed() {
    for test in each_db().await {
        let timing = Timing {
            lease: Duration::from_millis(600),
            renewal: Duration::from_millis(20),
            ..QUICK_TIMING
        };
        let member = member(&test.db, Arc::new(SystemClock), "a", timing);
        let mut tx = test.db.begin_write().await.unwrap();
        let fence = member.acquire_lease(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let stop = CancellationToken::new();
        let heartbeat = tokio::spawn(Arc::clone(&member).keep_alive(fence, stop.clone()));
        assert!(member.is_steady());

        execute(&test.db, "ALTER TABLE leases RENAME TO away").await;
        eventually("it is not steady", async || !member.is_steady()).await;
        let back = tokio::time::Instant::now();
        execute(&test.db, "ALTER TABLE away RENAME TO leases").await;
        eventually("it is steady again", async || member.is_steady()).await;

        assert!(back.elapsed() >= timing.lease, "{}", test.kind);
        stop.cancel();
        heartbeat.await.unwrap().unwrap();
    }
}
