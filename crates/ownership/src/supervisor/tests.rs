//! Which actor has an object when notices of its actors come late.

use std::sync::atomic::Ordering;

use ferroflow_db::testing::TestDb;
use ferroflow_types::id::RandomIds;
use ferroflow_types::time::SystemClock;

use super::*;
use crate::Member;
use crate::tests::toy::{CounterFactory, Counters, Hooks, Id, each_db};

const KEY: Id = Id(1);

async fn supervisor(hooks: &Arc<Hooks>) -> (Supervisor<CounterFactory>, TestDb) {
    let test = each_db().await.swap_remove(0);
    let member = Member::new(test.db.clone(), Arc::new(SystemClock), "a".to_owned());
    let (ownership, inbox) = Ownership::new(Arc::new(member), Arc::new(RandomIds), 10);
    let ownership = Arc::new(ownership);
    let factory = CounterFactory::new(&ownership, hooks);
    (Supervisor::new(factory, ownership, inbox), test)
}

fn drive(claim: Option<Claim<Id>>) -> Message<Counters> {
    let (key, command) = (KEY, Command::Drive);
    Message {
        key,
        claim,
        command,
    }
}

fn idle(actor: task::Id, served: u64) -> Notice<Counters> {
    let key = KEY;
    Notice::Idle { key, actor, served }
}

#[tokio::test]
async fn an_idle_actor_is_released_only_if_no_message_is_on_its_way() {
    let (mut supervisor, _test) = supervisor(&Arc::default()).await;
    let actor = supervisor.mailbox(Claim::first(KEY)).actor;
    supervisor.deliver(drive(None));

    supervisor.handle_notice(idle(actor, 0));
    assert!(supervisor.actors.contains_key(&KEY));
    supervisor.handle_notice(idle(actor, 1));
    assert!(!supervisor.actors.contains_key(&KEY));
}

#[tokio::test]
async fn a_notice_of_an_actor_that_was_replaced_ends_only_that_actor() {
    let (mut supervisor, _test) = supervisor(&Arc::default()).await;
    let first = supervisor.mailbox(Claim::first(KEY)).actor;
    // The object was lost and won again.
    let fence = Claim::<Id>::FIRST_FENCE + 1;
    supervisor.deliver(drive(Some(Claim { key: KEY, fence })));
    let second = supervisor.mailbox(Claim { key: KEY, fence }).actor;
    assert_ne!(first, second);

    supervisor.handle_notice(idle(first, 0));
    let (key, actor, messages) = (KEY, first, Vec::new());
    supervisor.handle_notice(Notice::Lost {
        key,
        actor,
        messages,
    });

    assert_eq!(supervisor.actors[&KEY].actor, second);
}

#[tokio::test]
async fn the_end_of_an_actor_that_panicked_leaves_the_one_after_it() {
    let hooks = Arc::new(Hooks::default());
    hooks.panics.store(1, Ordering::SeqCst);
    let (mut supervisor, _test) = supervisor(&hooks).await;
    supervisor.mailbox(Claim::first(KEY));
    let ended = supervisor.tasks.join_next_with_id().await.unwrap();
    assert!(ended.as_ref().unwrap_err().is_panic());

    // A message finds out first, and the next one starts an actor under the same claim.
    supervisor.deliver(drive(None));
    let next = supervisor.mailbox(Claim::first(KEY)).actor;
    supervisor.actor_ended(ended);

    assert_eq!(supervisor.actors[&KEY].actor, next);
}
