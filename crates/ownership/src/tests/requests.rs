//! The table of requests.

use ferroflow_db::Read as _;
use ferroflow_types::{Clock as _, ErrorKind};
use uuid::Uuid;

use super::toy::{
    Counters, Id, ManualClock, Refusal, Request, each_db, idle_replica, insert, stored,
};
use crate::request;

#[tokio::test]
async fn a_request_is_answered_once_and_one_that_was_withdrawn_never() {
    for test in each_db().await {
        insert(&test.db, Id(1), "a").await;
        let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
        let clock = ManualClock::new();
        let now = clock.now();
        clock.advance(std::time::Duration::from_millis(1));
        let later = clock.now();
        let mut tx = test.db.begin_write().await.unwrap();
        let asked = [
            (first, Id(1), Request::Increment, now),
            (second, Id(2), Request::Finish, later),
        ];
        for (id, key, request, at) in &asked {
            let inserted = request::insert::<Counters>(&mut tx, *id, *key, request, *at);
            inserted.await.unwrap();
        }
        let pending = request::pending::<Counters>(&mut tx, 10).await.unwrap();
        let owners: Vec<_> = pending
            .iter()
            .map(|one| (one.request, one.found.as_ref().map(|f| f.owner.as_str())))
            .collect();
        let expected = [(Request::Increment, Some("a")), (Request::Finish, None)];
        assert_eq!(owners, expected, "{}", test.kind);

        let refusal = Err(Refusal::Finished);
        let answered = request::answer::<Counters>(&mut tx, first, refusal, now).await;
        assert!(answered.unwrap(), "{}", test.kind);
        let again = request::answer::<Counters>(&mut tx, first, Ok(()), now).await;
        assert!(!again.unwrap());
        assert!(!request::withdraw::<Counters>(&mut tx, first).await.unwrap());
        let answer = request::answer_of::<Counters>(&mut tx, first).await;
        assert_eq!(answer.unwrap(), Some(refusal));

        assert!(
            request::withdraw::<Counters>(&mut tx, second)
                .await
                .unwrap()
        );
        let late = request::answer::<Counters>(&mut tx, second, Ok(()), now).await;
        assert!(!late.unwrap(), "{}", test.kind);

        request::forget::<Counters>(&mut tx, later).await.unwrap();
        let forgotten = request::answer_of::<Counters>(&mut tx, first).await;
        assert_eq!(forgotten.unwrap(), None);
        let pending = request::pending::<Counters>(&mut tx, 10).await.unwrap();
        assert!(pending.is_empty(), "{}", test.kind);
    }
}

#[tokio::test]
async fn only_an_answered_request_is_removed_by_who_read_the_answer() {
    for test in each_db().await {
        let id = Uuid::new_v4();
        let now = ManualClock::new().now();
        let mut tx = test.db.begin_write().await.unwrap();
        request::insert::<Counters>(&mut tx, id, Id(1), &Request::Finish, now)
            .await
            .unwrap();
        request::remove_answered::<Counters>(&mut tx, id)
            .await
            .unwrap();
        let answered = request::answer::<Counters>(&mut tx, id, Ok(()), now).await;
        assert!(answered.unwrap(), "{}", test.kind);
        let answer = request::answer_of::<Counters>(&mut tx, id).await.unwrap();
        assert_eq!(answer, Some(Ok(())));
        request::remove_answered::<Counters>(&mut tx, id)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(stored(&test.db).await, 0, "{}", test.kind);
    }
}

#[tokio::test]
async fn words_that_are_not_known_name_their_table_and_column() {
    for test in each_db().await {
        let (id, now) = (Uuid::new_v4(), ManualClock::new().now());
        let mut tx = test.db.begin_write().await.unwrap();
        request::insert::<Counters>(&mut tx, id, Id(1), &Request::Finish, now)
            .await
            .unwrap();
        let broken = sqlx::query("UPDATE counter_requests SET request = 'X', answer = 'Y'");
        broken.execute(tx.conn()).await.unwrap();

        let pending = request::pending::<Counters>(&mut tx, 1).await.unwrap_err();
        sqlx::query("UPDATE counter_requests SET answered_at = 1")
            .execute(tx.conn())
            .await
            .unwrap();
        let answer = request::answer_of::<Counters>(&mut tx, id).await;

        let texts = [pending.to_string(), answer.unwrap_err().to_string()];
        let expected = [
            "table counter_requests, column request: unknown word \"X\"",
            "table counter_requests, column answer: unknown word \"Y\"",
        ];
        assert_eq!(texts, expected, "{}", test.kind);
    }
}

#[tokio::test]
async fn a_driver_that_answers_a_withdrawn_request_rolls_back() {
    for test in each_db().await {
        insert(&test.db, Id(1), "a").await;
        let ownership = idle_replica(&test.db, &ManualClock::new(), "a");
        let mut tx = test.db.begin_write().await.unwrap();

        let answered = ownership.answer(&mut tx, Uuid::new_v4(), Ok(())).await;

        let error = answered.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(error.reason(), "REQUEST_WITHDRAWN", "{}", test.kind);
    }
}

#[tokio::test]
async fn a_driver_that_lost_its_claim_leaves_the_refusal_to_the_next() {
    for test in each_db().await {
        let held = insert(&test.db, Id(1), "a").await;
        let clock = ManualClock::new();
        let ownership = idle_replica(&test.db, &clock, "a");
        let id = Uuid::new_v4();
        let mut tx = test.db.begin_write().await.unwrap();
        request::insert::<Counters>(&mut tx, id, Id(1), &Request::Finish, clock.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let mut old = held;
        old.fence -= 1;

        let lost = ownership.refuse(old, id, Refusal::Finished).await.unwrap();
        let kept = ownership.refuse(held, id, Refusal::Finished).await.unwrap();

        assert_eq!((lost, kept), (false, true), "{}", test.kind);
        let mut tx = test.db.begin_read().await.unwrap();
        let answer = request::answer_of::<Counters>(&mut tx, id).await.unwrap();
        assert_eq!(answer, Some(Err(Refusal::Finished)));
    }
}
