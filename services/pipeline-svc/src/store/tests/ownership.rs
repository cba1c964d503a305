//! Who drives a run, and what its driver is asked.

use ferroflow_ownership::{claim, request};

use super::*;
use crate::domain::request::{Refusal, Request};
use crate::store::ownership::Runs;

async fn stored(db: &Db, owner: &str) -> Run {
    let run = run(&experiment("e"), 1);
    let mut tx = db.begin_write().await.unwrap();
    runs::insert(&mut tx, &run, owner).await.unwrap();
    tx.commit().await.unwrap();
    run
}

async fn take(db: &Db, owner: &str, me: &str) -> Vec<Claim> {
    let mut tx = db.begin_write().await.unwrap();
    let mut taken = Vec::new();
    for found in claim::of_owner::<Runs>(&mut tx, owner, 10).await.unwrap() {
        taken.extend(claim::claim::<Runs>(&mut tx, &found, me).await.unwrap());
    }
    tx.commit().await.unwrap();
    taken
}

#[tokio::test]
async fn a_lost_claim_writes_nothing() {
    for TestDb { kind: name, db, .. } in databases().await {
        let mut run = stored(&db, "a").await;
        let before = held(&run);
        let taken = take(&db, "a", "b").await;
        let [after] = taken[..] else {
            panic!("{name}: {taken:?}")
        };
        assert!(after.fence > before.fence);

        run.set_status(RunStatus::Running, None, NOW);
        let mut tx = db.begin_write().await.unwrap();
        assert!(!runs::set_progress(&mut tx, &run, before).await.unwrap());
        assert!(
            !runs::set_driven_event_sequence(&mut tx, &run, before)
                .await
                .unwrap()
        );
        assert!(!runs::delete(&mut tx, before).await.unwrap());
        assert!(runs::set_progress(&mut tx, &run, after).await.unwrap());
        assert!(runs::delete(&mut tx, after).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_many_claimers_gets_a_run() {
    for TestDb { kind: name, db, .. } in databases().await {
        stored(&db, "").await;
        let claimers: Vec<_> = (0..8)
            .map(|number| {
                let db = db.clone();
                tokio::spawn(async move { take(&db, "", &format!("r{number}")).await.len() })
            })
            .collect();
        let mut taken = 0;
        for claimer in claimers {
            taken += claimer.await.unwrap();
        }
        assert_eq!(taken, 1, "{name}");
    }
}

#[tokio::test]
async fn a_released_run_can_be_claimed_and_an_ended_one_is_not_listed() {
    for TestDb { kind: name, db, .. } in databases().await {
        let ended = {
            let mut run = stored(&db, "a").await;
            run.set_status(RunStatus::Succeeded, None, NOW);
            let mut tx = db.begin_write().await.unwrap();
            assert!(runs::set_progress(&mut tx, &run, held(&run)).await.unwrap());
            tx.commit().await.unwrap();
            run
        };
        let active = stored(&db, "a").await;
        let mut tx = db.begin_write().await.unwrap();
        assert_eq!(
            claim::release::<Runs>(&mut tx, "a").await.unwrap(),
            1,
            "{name}"
        );
        let found = claim::of_owner::<Runs>(&mut tx, "", 10).await.unwrap();
        let runs: Vec<_> = found.iter().map(|found| found.claim.key).collect();
        assert_eq!(runs, [active.id]);
        // Its driver may not have heard of it.
        assert!(
            !runs::set_progress(&mut tx, &active, held(&active))
                .await
                .unwrap()
        );
        let kept = claim::find::<Runs>(&mut tx, ended.id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((kept.owner.as_str(), kept.claim), ("a", held(&ended)));
        assert_eq!(claim::release_all::<Runs>(&mut tx).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_request_is_answered_once_and_one_that_was_taken_back_never() {
    for TestDb { kind: name, db, .. } in databases().await {
        let run = stored(&db, "a").await;
        let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
        let later = Timestamp::from_millis(NOW.millis() + 1);
        let mut tx = db.begin_write().await.unwrap();
        request::insert::<Runs>(&mut tx, first, run.id, &Request::Cancel, NOW)
            .await
            .unwrap();
        request::insert::<Runs>(&mut tx, second, RunId::new(second), &Request::Retry, later)
            .await
            .unwrap();
        let pending = request::pending::<Runs>(&mut tx, 10).await.unwrap();
        let owners: Vec<_> = pending
            .iter()
            .map(|one| (one.request, one.found.as_ref().map(|f| f.owner.as_str())))
            .collect();
        let expected = [(Request::Cancel, Some("a")), (Request::Retry, None)];
        assert_eq!(owners, expected, "{name}");

        let refusal = Err(Refusal::Ended(RunStatus::Failed));
        assert!(
            request::answer::<Runs>(&mut tx, first, refusal, NOW)
                .await
                .unwrap()
        );
        assert!(
            !request::answer::<Runs>(&mut tx, first, Ok(()), NOW)
                .await
                .unwrap()
        );
        assert!(!request::withdraw::<Runs>(&mut tx, first).await.unwrap());
        let answer = request::answer_of::<Runs>(&mut tx, first).await.unwrap();
        assert_eq!(answer, Some(refusal));
        assert!(request::withdraw::<Runs>(&mut tx, second).await.unwrap());
        assert!(
            !request::answer::<Runs>(&mut tx, second, Ok(()), NOW)
                .await
                .unwrap()
        );
        request::forget::<Runs>(&mut tx, later).await.unwrap();
        assert_eq!(
            request::answer_of::<Runs>(&mut tx, first).await.unwrap(),
            None
        );
        assert!(
            request::pending::<Runs>(&mut tx, 10)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

/// However many runs are kept: what is under way has an index of its own.
#[tokio::test]
async fn runs_to_be_driven_are_found_by_an_index() {
    use ferroflow_db::Read as _;
    use sqlx::Row as _;
    let databases = databases().await;
    let db = &databases[0].db;
    let mut tx = db.begin_read().await.unwrap();
    let query = "EXPLAIN QUERY PLAN SELECT id, owner, fence FROM runs WHERE owner = '' \
        AND finished_at = 0 ORDER BY created_at, id LIMIT 10";
    let rows = sqlx::query(query).fetch_all(tx.conn()).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
    let plan = plan.join("; ");
    assert!(
        plan.contains("runs_by_owner") && !plan.contains("TEMP B-TREE"),
        "{plan}"
    );
}
