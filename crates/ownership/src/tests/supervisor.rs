//! Actors: started, restarted, let go of, one for each counter.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ferroflow_db::Db;
use ferroflow_types::ErrorKind;
use ferroflow_types::id::RandomIds;
use ferroflow_types::time::SystemClock;

use super::toy::{
    Counters, Hooks, Id, Refusal, Replica, Request, each_db, eventually, insert, member, owner_of,
    value_of,
};
use crate::member::Timing;
use crate::supervisor::MAILBOX_MAX;
use crate::{Claim, Ownership, claim};

/// Takes a counter from its owner.
async fn steal(db: &Db, id: Id, owner: &str) -> Claim<Id> {
    let mut tx = db.begin_write().await.unwrap();
    let found = claim::find::<Counters>(&mut tx, id).await.unwrap();
    let taken = claim::claim::<Counters>(&mut tx, &found.unwrap(), owner).await;
    tx.commit().await.unwrap();
    taken.unwrap().unwrap()
}

fn started(hooks: &Hooks) -> usize {
    hooks.started.load(Ordering::SeqCst)
}

#[tokio::test]
async fn what_a_killed_replica_drove_goes_on_in_another() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let mut a = Replica::start(&test.db, "a", 10, &hooks).await;
        for number in 1..=4 {
            let claim = insert(&test.db, Id(number), "a").await;
            a.ownership.wake(claim).await;
        }
        let b = Replica::start(&test.db, "b", 10, &hooks).await;

        a.kill().await;

        for number in 1..=4 {
            let owner = async || owner_of(&test.db, Id(number)).await == "b";
            eventually("it is taken over", owner).await;
            let done = b.ownership.ask(Id(number), Request::Increment).await;
            assert_eq!(done.unwrap(), Ok(()), "{}", test.kind);
            assert_eq!(value_of(&test.db, Id(number)).await, 1);
        }
        assert_eq!(hooks.overlaps.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn an_actor_whose_step_failed_reads_again() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        hooks.failures.store(2, Ordering::SeqCst);
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;

        let done = a.ownership.ask(Id(1), Request::Increment).await.unwrap();

        assert_eq!(done, Ok(()), "{}", test.kind);
        assert_eq!(hooks.failures.load(Ordering::SeqCst), 0);
        assert_eq!(started(&hooks), 1, "{}", test.kind);
        assert_eq!(value_of(&test.db, Id(1)).await, 1);
    }
}

#[tokio::test]
async fn an_actor_that_panicked_fails_its_callers_and_others_do_not_notice() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        for number in 1..=2 {
            let claim = insert(&test.db, Id(number), "a").await;
            a.ownership.wake(claim).await;
        }
        let loads = || hooks.loads.load(Ordering::SeqCst);
        eventually("both are driven", async || loads() == 2).await;

        // Were it asked again, it would answer.
        hooks.panics.store(1, Ordering::SeqCst);
        let error = a.ownership.ask(Id(1), Request::Increment).await;

        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", test.kind);
        assert_eq!(error.reason(), "DRIVER_FAILED");
        assert_eq!(
            error.to_string(),
            "the driver of counter c0001 failed before it answered, try again"
        );
        assert_eq!(
            hooks.requests_received.load(Ordering::SeqCst),
            1,
            "{}",
            test.kind
        );
        for number in 1..=2 {
            let done = a.ownership.ask(Id(number), Request::Increment).await;
            assert_eq!(done.unwrap(), Ok(()), "{}", test.kind);
            assert_eq!(value_of(&test.db, Id(number)).await, 1);
        }
        assert_eq!(hooks.overlaps.load(Ordering::SeqCst), 0, "{}", test.kind);
    }
}

#[tokio::test]
async fn an_actor_that_panicked_is_started_without_being_asked() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        hooks.panics.store(1, Ordering::SeqCst);
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;

        let loads = || hooks.loads.load(Ordering::SeqCst);
        eventually("it is started again", async || loads() == 1).await;

        assert_eq!(started(&hooks), 2, "{}", test.kind);
        assert_eq!(owner_of(&test.db, Id(1)).await, "a");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_never_has_two_actors_at_work() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let b = Replica::start(&test.db, "b", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        a.ownership
            .ask(Id(1), Request::Finish)
            .await
            .unwrap()
            .unwrap();

        // Its actor has nothing to do and is let go of, again and again, while messages come.
        let asking: Vec<_> = (0..40)
            .map(|number| {
                let replica = if number % 4 == 0 { &b } else { &a };
                let ownership = Arc::clone(&replica.ownership);
                tokio::spawn(async move { ownership.ask(Id(1), Request::Increment).await })
            })
            .collect();
        for one in asking {
            let answer = one.await.unwrap().unwrap();
            assert_eq!(answer, Err(Refusal::Finished), "{}", test.kind);
        }

        assert!(started(&hooks) > 1, "{}", test.kind);
        assert_eq!(hooks.overlaps.load(Ordering::SeqCst), 0, "{}", test.kind);
        assert_eq!(value_of(&test.db, Id(1)).await, 0);
    }
}

#[tokio::test]
async fn an_actor_whose_claim_is_lost_writes_nothing_and_its_caller_is_answered() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        let gate = hooks.gate(Id(1));
        let asking = {
            let ownership = Arc::clone(&a.ownership);
            tokio::spawn(async move { ownership.ask(Id(1), Request::Increment).await })
        };
        eventually("it is driven", async || started(&hooks) == 1).await;

        // Who takes it is not alive, so it is taken back.
        steal(&test.db, Id(1), "b").await;
        gate.add_permits(10);

        assert_eq!(asking.await.unwrap().unwrap(), Ok(()), "{}", test.kind);
        assert_eq!(value_of(&test.db, Id(1)).await, 1);
        assert_eq!(started(&hooks), 2, "{}", test.kind);
    }
}

#[tokio::test]
async fn an_actor_whose_event_failed_reads_again() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        let loads = || hooks.loads.load(Ordering::SeqCst);
        eventually("it has read", async || loads() == 1).await;

        hooks.failures.store(1, Ordering::SeqCst);
        hooks.tick.notify_one();
        eventually("it has read again", async || loads() == 2).await;
        hooks.tick.notify_one();

        let value = async || value_of(&test.db, Id(1)).await == 1;
        eventually("it works again", value).await;
        assert_eq!(started(&hooks), 1, "{}", test.kind);
    }
}

#[tokio::test]
async fn an_actor_that_finds_its_claim_lost_writes_nothing_and_makes_room() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let other = member(&test.db, Arc::new(SystemClock), "b", Timing::default());
        let (other, _inbox) = Ownership::<Counters>::new(other, Arc::new(RandomIds), 1);
        other.enter().await.unwrap();
        let a = Replica::start(&test.db, "a", 1, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        eventually("it is driven", async || {
            a.ownership.owner_of_new().is_empty()
        })
        .await;

        let taken = steal(&test.db, Id(1), "b").await;
        hooks.tick.notify_one();

        eventually("there is room", async || a.ownership.owner_of_new() == "a").await;
        assert_eq!(value_of(&test.db, Id(1)).await, 0, "{}", test.kind);
        assert_eq!(other.own_claims().await.unwrap(), [taken], "{}", test.kind);
    }
}

#[tokio::test]
async fn above_the_limit_objects_wait_in_their_order() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        for number in 1..=3 {
            insert(&test.db, Id(number), "").await;
        }
        let a = Replica::start(&test.db, "a", 1, &hooks).await;
        eventually("the first is driven", async || {
            owner_of(&test.db, Id(1)).await == "a"
        })
        .await;
        eventually("there is no room", async || {
            a.ownership.owner_of_new().is_empty()
        })
        .await;
        assert_eq!(owner_of(&test.db, Id(3)).await, "");

        for number in 1..=3 {
            let owner = async || owner_of(&test.db, Id(number)).await == "a";
            eventually("it has its turn", owner).await;
            let done = a.ownership.ask(Id(number), Request::Finish).await;
            assert_eq!(done.unwrap(), Ok(()), "{}", test.kind);
        }

        eventually("there is room", async || a.ownership.owner_of_new() == "a").await;
    }
}

#[tokio::test]
async fn above_the_limit_what_is_created_here_waits_too() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 1, &hooks).await;
        for number in 1..=2 {
            let claim = insert(&test.db, Id(number), "a").await;
            a.ownership.wake(claim).await;
        }
        // The supervisor reads messages in their order.
        let missing = a.ownership.ask(Id(3), Request::Increment).await.unwrap();
        assert_eq!(missing, Err(Refusal::Missing), "{}", test.kind);

        assert_eq!(started(&hooks), 1, "{}", test.kind);
        let done = a.ownership.ask(Id(1), Request::Finish).await.unwrap();
        assert_eq!(done, Ok(()));
        eventually("the second is driven", async || started(&hooks) == 2).await;
    }
}

#[tokio::test]
async fn requests_that_an_actor_has_no_room_for_are_refused() {
    for test in each_db().await.into_iter().take(1) {
        let hooks = Arc::new(Hooks::default());
        let a = Replica::start(&test.db, "a", 10, &hooks).await;
        let claim = insert(&test.db, Id(1), "a").await;
        a.ownership.wake(claim).await;
        let gate = hooks.gate(Id(1));

        // One is being answered, the rest fill the mailbox, one is too many.
        let mut asking = tokio::task::JoinSet::new();
        let ask = |ownership: Arc<Ownership<Counters>>| async move {
            ownership.ask(Id(1), Request::Increment).await
        };
        asking.spawn(ask(Arc::clone(&a.ownership)));
        let asked = || hooks.requests_received.load(Ordering::SeqCst);
        eventually("its actor is asked", async || asked() == 1).await;
        for _ in 0..=MAILBOX_MAX {
            asking.spawn(ask(Arc::clone(&a.ownership)));
        }
        let first = asking.join_next().await.unwrap().unwrap();

        let error = first.unwrap_err();
        assert_eq!(error.reason(), "DRIVER_BUSY");
        assert_eq!(
            error.to_string(),
            "too many requests wait for the driver of counter c0001, try again"
        );
        gate.add_permits(MAILBOX_MAX + 1);
        while let Some(answer) = asking.join_next().await {
            assert_eq!(answer.unwrap().unwrap(), Ok(()));
        }
        let done = i64::try_from(MAILBOX_MAX + 1).unwrap();
        assert_eq!(value_of(&test.db, Id(1)).await, done);
    }
}

#[tokio::test]
async fn what_is_owned_here_and_not_known_is_taken_up() {
    for test in each_db().await {
        let hooks = Arc::new(Hooks::default());
        let _a = Replica::start(&test.db, "a", 10, &hooks).await;

        // The message that should follow was lost.
        insert(&test.db, Id(1), "a").await;

        eventually("it is driven", async || started(&hooks) == 1).await;
    }
}
