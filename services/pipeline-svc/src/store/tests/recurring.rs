//! Recurring runs in the store.

use ferroflow_db::WriteTx;
use ferroflow_db::testing::TestDb;
use ferroflow_schedule::{Limits, Progress, Trigger, When};
use ferroflow_service::listing::{ListRequest, listing};
use ferroflow_types::{Caller, Namespace, Timestamp};

use super::{NOW, databases, experiment, here, run};
use crate::domain::id::{ExperimentId, PipelineId, PipelineVersionId, RecurringRunId};
use crate::domain::recurring::{PipelineChoice, RecurringRun};
use crate::domain::run::RunError;
use crate::store::{recurring_runs, runs};
use serde_json::{Map, json};
use uuid::Uuid;

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_millis(NOW.millis() + seconds * 1000)
}

fn recurring(experiment: ExperimentId, when: When, next_due: i64) -> RecurringRun {
    RecurringRun {
        id: RecurringRunId::new(Uuid::new_v4()),
        namespace: Namespace::single_user(),
        experiment,
        display_name: "nightly".to_owned(),
        description: "words".to_owned(),
        pipeline: PipelineChoice::Inline {
            digest: "sha256:0".to_owned(),
        },
        parameters: Map::from_iter([("n".to_owned(), json!(3))]),
        root_given: String::new(),
        service_account: "pipeline-runner".to_owned(),
        trigger: Trigger {
            when,
            start: None,
            end: Some(later(3600)),
        },
        limits: Limits {
            max_concurrency: 1,
            no_catchup: true,
        },
        enabled: true,
        error: None,
        created_at: NOW,
        updated_at: NOW,
        progress: Progress {
            cursor: NOW,
            fired: 0,
        },
        next_due: Some(later(next_due)),
        event_sequence: 1,
        created_by: "kim".to_owned(),
    }
}

#[tokio::test]
async fn what_is_stored_reads_back_the_same() {
    for TestDb { kind: name, db, .. } in databases().await {
        let pipeline = PipelineId::new(Uuid::new_v4());
        let choices = [
            PipelineChoice::Latest { pipeline },
            PipelineChoice::Version {
                pipeline,
                version: PipelineVersionId::new(Uuid::new_v4()),
                digest: "sha256:1".to_owned(),
            },
            PipelineChoice::Inline {
                digest: "sha256:2".to_owned(),
            },
        ];
        let rules = [
            When::Cron("@daily".to_owned()),
            When::Periodic(7),
            When::Once,
        ];
        for (choice, when) in choices.into_iter().zip(rules) {
            let mut one = recurring(experiment("e").id, when, 60);
            one.pipeline = choice;
            let mut tx = db.begin_write().await.unwrap();
            recurring_runs::insert(&mut tx, &one).await.unwrap();
            let found = recurring_runs::lock(&mut tx, &Caller::local(), one.id)
                .await
                .unwrap();
            assert_eq!(found.as_ref(), Some(&one), "{name}");
            one.enabled = false;
            one.error = Some(RunError {
                code: 5,
                message: "gone".to_owned(),
            });
            one.progress = Progress {
                cursor: later(60),
                fired: 1,
            };
            one.next_due = None;
            one.updated_at = later(61);
            one.event_sequence = 2;
            recurring_runs::set(&mut tx, &one).await.unwrap();
            tx.commit().await.unwrap();
            let mut tx = db.begin_write().await.unwrap();
            let found = recurring_runs::get(&mut tx, &Caller::local(), one.id)
                .await
                .unwrap();
            assert_eq!(found, Some(one.clone()), "{name}");
            assert!(recurring_runs::delete(&mut tx, one.id).await.unwrap());
            assert!(recurring_runs::set(&mut tx, &one).await.is_err());
        }
    }
}

/// Those that are due so many seconds later, read one by one.
async fn due(tx: &mut WriteTx, seconds: i64) -> Vec<RecurringRunId> {
    let (mut all, mut last) = (Vec::new(), None);
    loop {
        let some = recurring_runs::due(tx, &Caller::local(), later(seconds), last, 1)
            .await
            .unwrap();
        let Some(&one) = some.last() else {
            return all;
        };
        all.push(one.id);
        last = Some(one);
    }
}

#[tokio::test]
async fn due_ones_are_read_in_pages_those_that_wait_longest_first() {
    for TestDb { kind: name, db, .. } in databases().await {
        let folder = experiment("e");
        let mut tx = db.begin_write().await.unwrap();
        let mut expected = Vec::new();
        for next_due in [30, 10, 20, 10, 10] {
            let one = recurring(folder.id, When::Periodic(7), next_due);
            recurring_runs::insert(&mut tx, &one).await.unwrap();
            expected.push((next_due, one.id.to_string(), one.id));
        }
        expected.sort();
        let expected: Vec<_> = expected.into_iter().map(|(_, _, id)| id).collect();
        assert_eq!(due(&mut tx, 30).await, expected, "{name}");
        assert_eq!(due(&mut tx, 29).await, expected[..4], "{name}");
    }
}

#[tokio::test]
async fn due_ones_are_those_with_a_slot() {
    for TestDb { kind: name, db, .. } in databases().await {
        let folder = experiment("e");
        let free = recurring(folder.id, When::Periodic(7), 20);
        let busy = recurring(folder.id, When::Periodic(7), 10);
        let mut disabled = recurring(folder.id, When::Periodic(7), 10);
        disabled.enabled = false;
        let future = recurring(folder.id, When::Periodic(7), 1000);
        let mut under_way = run(&folder, 1);
        under_way.recurring_run = Some(busy.id);
        let mut ended = run(&folder, 2);
        ended.recurring_run = Some(free.id);
        ended.finished_at = Some(NOW);
        let mut tx = db.begin_write().await.unwrap();
        for one in [&free, &busy, &disabled, &future] {
            recurring_runs::insert(&mut tx, one).await.unwrap();
        }
        runs::insert(&mut tx, &under_way, "me").await.unwrap();
        runs::insert(&mut tx, &ended, "me").await.unwrap();
        assert_eq!(runs::count_active(&mut tx, &busy).await.unwrap(), 1);
        assert_eq!(runs::count_active(&mut tx, &free).await.unwrap(), 0);
        assert_eq!(due(&mut tx, 20).await, [free.id], "{name}");
        assert_eq!(due(&mut tx, 19).await, [], "{name}");
        let next = recurring_runs::next_due(&mut tx, later(20)).await.unwrap();
        assert_eq!(next, Some(later(1000)), "{name}");
        let enabled = recurring_runs::enabled_of_experiment(&mut tx, &folder).await;
        assert_eq!(enabled.unwrap().len(), 3, "{name}");
        let first = recurring_runs::enabled_after(&mut tx, &Caller::local(), "", 2)
            .await
            .unwrap();
        let last = first.last().unwrap().id.to_string();
        let rest = recurring_runs::enabled_after(&mut tx, &Caller::local(), &last, 2)
            .await
            .unwrap();
        assert_eq!((first.len(), rest.len()), (2, 1), "{name}");
        tx.commit().await.unwrap();

        let filter = json!({"predicates": [
            {"operation": "EQUALS", "key": "status", "string_value": "DISABLED"}]});
        let request = ListRequest {
            filter: filter.to_string(),
            sort_by: "updated_at desc".to_owned(),
            ..Default::default()
        };
        let mut tx = db.begin_read().await.unwrap();
        let (table, wanted) = (&recurring_runs::TABLE, listing(&request).unwrap());
        let page =
            ferroflow_db::list::list(&mut tx, table, &here(), &wanted, recurring_runs::decode)
                .await;
        assert_eq!(page.unwrap().entries, [disabled], "{name}");
    }
}
