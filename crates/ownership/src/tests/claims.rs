//! Owners and fences in the table.

use ferroflow_db::{Db, DbError};

use super::toy::{Counters, FINISH, INCREMENT, Id, each_db, insert, owner_of, value_of, write};
use crate::{Claim, claim};

async fn take(db: &Db, owner: &str, me: &str) -> Vec<Claim<Id>> {
    let mut tx = db.begin_write().await.unwrap();
    let mut taken = Vec::new();
    let found = claim::of_owner::<Counters>(&mut tx, owner, 10).await;
    for found in found.unwrap() {
        let claimed = claim::claim::<Counters>(&mut tx, &found, me).await;
        taken.extend(claimed.unwrap());
    }
    tx.commit().await.unwrap();
    taken
}

#[tokio::test]
async fn an_old_fence_writes_nothing() {
    for test in each_db().await {
        let before = insert(&test.db, Id(1), "a").await;
        let taken = take(&test.db, "a", "b").await;
        let [after] = taken[..] else {
            panic!("{}: {taken:?}", test.kind)
        };
        assert_eq!((after.key, after.fence), (Id(1), before.fence + 1));

        let mut tx = test.db.begin_write().await.unwrap();
        assert!(!write(&mut tx, INCREMENT, before).await, "{}", test.kind);
        assert!(write(&mut tx, INCREMENT, after).await, "{}", test.kind);
        tx.commit().await.unwrap();
        assert_eq!(value_of(&test.db, Id(1)).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_want_an_object_one_gets_it() {
    for test in each_db().await {
        insert(&test.db, Id(1), "").await;
        let wanting: Vec<_> = (0..8)
            .map(|number| {
                let db = test.db.clone();
                tokio::spawn(async move { take(&db, "", &format!("r{number}")).await.len() })
            })
            .collect();

        let mut taken = 0;
        for one in wanting {
            taken += one.await.unwrap();
        }

        assert_eq!(taken, 1, "{}", test.kind);
    }
}

#[tokio::test]
async fn what_is_given_back_is_anybodys_and_what_has_ended_stays() {
    for test in each_db().await {
        let ended = insert(&test.db, Id(1), "a").await;
        let active = insert(&test.db, Id(2), "a").await;
        insert(&test.db, Id(3), "b").await;
        let mut tx = test.db.begin_write().await.unwrap();
        assert!(write(&mut tx, FINISH, ended).await);

        let released = claim::release::<Counters>(&mut tx, "a").await.unwrap();
        let found = claim::of_owner::<Counters>(&mut tx, "", 10).await.unwrap();
        let keys: Vec<_> = found.iter().map(|found| found.claim.key).collect();

        assert_eq!((released, keys), (1, vec![Id(2)]), "{}", test.kind);
        // Its driver may not have heard of it.
        assert!(!write(&mut tx, INCREMENT, active).await);
        let released = claim::release_all::<Counters>(&mut tx).await.unwrap();
        assert_eq!(released, 1, "{}", test.kind);
        tx.commit().await.unwrap();
        assert_eq!(owner_of(&test.db, Id(1)).await, "a");
        assert_eq!(owner_of(&test.db, Id(3)).await, "");
    }
}

#[tokio::test]
async fn no_more_are_found_than_asked_for_and_in_their_order() {
    for test in each_db().await {
        for number in [3, 1, 2] {
            insert(&test.db, Id(number), "").await;
        }
        let mut tx = test.db.begin_read().await.unwrap();

        let found = claim::of_owner::<Counters>(&mut tx, "", 2).await.unwrap();

        let keys: Vec<_> = found.iter().map(|found| found.claim.key).collect();
        assert_eq!(keys, [Id(1), Id(2)], "{}", test.kind);
        let none = claim::find::<Counters>(&mut tx, Id(4)).await.unwrap();
        assert_eq!(none, None);
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_read_names_its_table_and_column() {
    use ferroflow_db::Read as _;
    for test in each_db().await {
        insert(&test.db, Id(1), "a").await;
        let mut tx = test.db.begin_write().await.unwrap();
        let broken = sqlx::query("UPDATE counters SET id = 'x'").execute(tx.conn());
        broken.await.unwrap();

        let error = claim::of_owner::<Counters>(&mut tx, "a", 1).await;

        let error = error.unwrap_err();
        assert!(matches!(error, DbError::Inconsistent { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "table counters, column id: \"x\" is no id"
        );
    }
}
