//! Requests, to a driver in this replica and in another one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferroflow_types::id::RandomIds;
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Clock as _, ErrorKind};
use uuid::Uuid;

use super::toy::{
    Counters, Hooks, Id, QUICK_TIMING, Refusal, Replica, Request, each_db, eventually, insert,
    member, owner_of, stored, value_of,
};
use crate::member::Timing;
use crate::{Ownership, request};

#[tokio::test]
async fn a_driver_elsewhere_answers_once() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let b = Replica::start(&test.db, "b", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;

        for round in 1..=5 {
            let done = b.ownership.ask(Id(1), Request::Increment).await.unwrap();
            assert_eq!(done, Ok(()), "{}", test.kind);
            assert_eq!(value_of(&test.db, Id(1)).await, round);
        }

        assert_eq!(owner_of(&test.db, Id(1)).await, "a");
        assert_eq!(stored(&test.db).await, 0, "{}", test.kind);
        let done = b.ownership.ask(Id(1), Request::Finish).await.unwrap();
        assert_eq!(done, Ok(()));
        let refused = b.ownership.ask(Id(1), Request::Increment).await.unwrap();
        assert_eq!(refused, Err(Refusal::Finished), "{}", test.kind);
        assert_eq!(value_of(&test.db, Id(1)).await, 5);
    }
}

#[tokio::test]
async fn what_nobody_drives_is_driven_by_who_is_asked() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 0, &hooks).await;
        insert(&test.db, Id(1), "").await;
        insert(&test.db, Id(2), "gone").await;

        for id in [Id(1), Id(2)] {
            let done = a.ownership.ask(id, Request::Increment).await.unwrap();
            assert_eq!(done, Ok(()), "{}", test.kind);
            assert_eq!(owner_of(&test.db, id).await, "a");
        }
        let missing = a.ownership.ask(Id(3), Request::Increment).await.unwrap();

        assert_eq!(missing, Err(Refusal::Missing), "{}", test.kind);
    }
}

#[tokio::test]
async fn a_request_to_a_silent_driver_is_withdrawn_and_never_done() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let timing = Timing {
            answer: Duration::from_millis(300),
            ..QUICK_TIMING
        };
        let silent = member(&test.db, Arc::new(SystemClock), "silent", Timing::default());
        let (silent, _inbox) = Ownership::<Counters>::new(silent, Arc::new(RandomIds), 10);
        silent.enter().await.unwrap();
        insert(&test.db, Id(1), "silent").await;
        let asking = member(&test.db, Arc::new(SystemClock), "a", timing);
        let (asking, inbox) = Ownership::new(asking, Arc::new(RandomIds), 10);
        let a = Replica::run(asking, inbox, &hooks).await;

        let error = a
            .ownership
            .ask(Id(1), Request::Increment)
            .await
            .unwrap_err();

        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", test.kind);
        assert_eq!(error.reason(), "DRIVER_SILENT");
        assert_eq!(stored(&test.db).await, 0);
        assert!(silent.requests().await.unwrap().is_empty());
        assert_eq!(value_of(&test.db, Id(1)).await, 0);
    }
}

#[tokio::test]
async fn a_request_outlives_the_driver_that_it_was_meant_for() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let mut a = Replica::start(&test.db, "a", 10, &hooks).await;
        let b = Replica::start(&test.db, "b", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        let gate = hooks.gate(Id(1));
        let asking = {
            let ownership = Arc::clone(&b.ownership);
            tokio::spawn(async move { ownership.ask(Id(1), Request::Increment).await })
        };
        eventually("the request is stored", async || {
            stored(&test.db).await == 1
        })
        .await;

        a.kill().await;
        gate.add_permits(10);

        assert_eq!(asking.await.unwrap().unwrap(), Ok(()), "{}", test.kind);
        assert_eq!(value_of(&test.db, Id(1)).await, 1);
        assert_eq!(owner_of(&test.db, Id(1)).await, "b");
    }
}

#[tokio::test]
async fn a_stored_request_that_is_found_again_is_not_asked_again() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let b = Replica::start(&test.db, "b", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        let gate = hooks.gate(Id(1));
        let asking = {
            let ownership = Arc::clone(&b.ownership);
            tokio::spawn(async move { ownership.ask(Id(1), Request::Increment).await })
        };
        let asked = || hooks.requests_received.load(Ordering::SeqCst);
        eventually("its actor is asked", async || asked() == 1).await;

        // A few polls, each of which finds it.
        tokio::time::sleep(QUICK_TIMING.renewal * 5).await;
        gate.add_permits(10);

        assert_eq!(asking.await.unwrap().unwrap(), Ok(()), "{}", test.kind);
        let next = b.ownership.ask(Id(1), Request::Increment).await.unwrap();
        assert_eq!((next, asked()), (Ok(()), 2), "{}", test.kind);
    }
}

#[tokio::test]
async fn a_stored_request_whose_actor_panicked_is_answered_by_the_next_actor() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let b = Replica::start(&test.db, "b", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        let loads = || hooks.loads.load(Ordering::SeqCst);
        eventually("its actor has read", async || loads() == 1).await;

        hooks.panics.store(1, Ordering::SeqCst);
        let done = b.ownership.ask(Id(1), Request::Increment).await;

        assert_eq!(done.unwrap(), Ok(()), "{}", test.kind);
        assert_eq!(
            hooks.requests_received.load(Ordering::SeqCst),
            2,
            "{}",
            test.kind
        );
        assert_eq!(value_of(&test.db, Id(1)).await, 1);
        assert_eq!(owner_of(&test.db, Id(1)).await, "a");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_is_an_error_here_and_retried_elsewhere() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let b = Replica::start(&test.db, "b", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;

        hooks.answer_failures.store(1, Ordering::SeqCst);
        let error = a
            .ownership
            .ask(Id(1), Request::Increment)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", test.kind);
        assert_eq!(error.reason(), "NOT_STORED");
        assert_eq!(error.to_string(), "not stored, try again");

        hooks.answer_failures.store(1, Ordering::SeqCst);
        let done = b.ownership.ask(Id(1), Request::Increment).await.unwrap();
        assert_eq!(done, Ok(()), "{}", test.kind);
        assert_eq!(value_of(&test.db, Id(1)).await, 1);
    }
}

#[tokio::test]
async fn a_request_about_what_is_gone_is_answered_by_anybody() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let _a = Replica::start(&test.db, "a", 10, &hooks).await;
        let id = Uuid::new_v4();
        let mut tx = test.db.begin_write().await.unwrap();
        let now = SystemClock.now();
        request::insert::<Counters>(&mut tx, id, Id(9), &Request::Finish, now)
            .await
            .unwrap();
        tx.commit().await.unwrap();

        eventually("it is answered", async || {
            let mut tx = test.db.begin_read().await.unwrap();
            let answer = request::answer_of::<Counters>(&mut tx, id).await.unwrap();
            answer == Some(Err(Refusal::Missing))
        })
        .await;
    }
}

#[tokio::test]
async fn a_replica_that_stops_asks_the_next_driver() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let b = Replica::start(&test.db, "b", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        let ownership = Arc::clone(&a.ownership);

        a.leave().await;
        eventually("the other drives it", async || {
            owner_of(&test.db, Id(1)).await == "b"
        })
        .await;
        assert_eq!(ownership.owner_of_new(), "");
        let done = ownership.ask(Id(1), Request::Increment).await;

        assert_eq!(done.unwrap(), Ok(()), "{}", test.kind);
        assert_eq!(value_of(&test.db, Id(1)).await, 1);
        drop(b);
    }
}

#[tokio::test]
async fn what_is_asked_when_its_replica_stops_is_asked_of_the_next_driver() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let _b = Replica::start(&test.db, "b", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        let gate = hooks.gate(Id(1));
        let asking = {
            let ownership = Arc::clone(&a.ownership);
            tokio::spawn(async move { ownership.ask(Id(1), Request::Increment).await })
        };
        let asked = || hooks.requests_received.load(Ordering::SeqCst);
        eventually("its actor is asked", async || asked() == 1).await;

        // Its actor is ended in the midst of the answer.
        a.leave().await;
        gate.add_permits(10);

        assert_eq!(asking.await.unwrap().unwrap(), Ok(()), "{}", test.kind);
        assert_eq!(owner_of(&test.db, Id(1)).await, "b");
        assert_eq!(value_of(&test.db, Id(1)).await, 1, "{}", test.kind);
    }
}
