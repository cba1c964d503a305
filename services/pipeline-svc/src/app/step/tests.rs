//! What a step writes, and that it writes nothing when the run is not this replica's any more.

use std::sync::Arc;

use ferroflow_db::testing::TestDb;
use ferroflow_ownership::Member;
use ferroflow_pipeline_engine::engine::{Event, RunFacts, RunPhase};
use ferroflow_types::id::RandomIds;
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Caller, ValueLimit};
use serde_json::json;

use super::*;
use crate::app::{plans, spec_file};
use crate::store::tests::outbox::{clear_outbox, pending_event_types};
use crate::store::tests::{databases, experiment, run};

const NOW: Timestamp = Timestamp::from_millis(1_769_860_800_250);

/// A run of one task that is stored, and its state before anything happened.
async fn stored(db: &Db) -> (Run, RunState) {
    let spec = json!({
        "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {"a": {"componentRef": {"name": "c"}}}}},
        "components": {"c": {"executorLabel": "e"}},
        "deploymentSpec": {"executors": {"e": {"container": {"image": "i", "command": ["sh"]}}}}
    });
    let (_, plan) = plans::check(&spec_file::from_json(spec).unwrap()).unwrap();
    let run = run(&experiment("e"), 1);
    let facts = RunFacts {
        run: run.id,
        namespace: run.namespace.clone(),
        resource_name: run.resource_name(),
        display_name: run.display_name.clone(),
        parameters: run.parameters.clone(),
        pipeline_root: run.root.clone(),
        created_at: run.created_at,
        values: ValueLimit::default(),
        workspace_path: None,
        workspace_claim: None,
        caching: false,
        kubernetes: false,
        entry_points: false,
    };
    let mut tx = db.begin_write().await.unwrap();
    store::runs::insert(&mut tx, &run, "me").await.unwrap();
    tx.commit().await.unwrap();
    let state = RunState::restore(Arc::new(plan), facts, RunPhase::New, Vec::new());
    (run, state.unwrap().0)
}

fn ownership(db: &Db) -> Ownership<Runs> {
    let member = Member::new(db.clone(), Arc::new(SystemClock), "me".to_owned());
    Ownership::new(Arc::new(member), Arc::new(RandomIds), 1).0
}

/// The types of the events that wait, in their order, and how many tasks are stored.
async fn written(db: &Db, run: &Run) -> (Vec<String>, usize) {
    let mut tx = db.begin_read().await.unwrap();
    let tasks = store::tasks::of_run(&mut tx, run).await.unwrap();
    (pending_event_types(&mut tx).await, tasks.len())
}

#[tokio::test]
async fn what_changed_and_its_events_are_written_together() {
    for TestDb { kind: name, db, .. } in databases().await {
        let (run, mut state) = stored(&db).await;
        let ownership = ownership(&db);
        let driver = Driver {
            ownership: &ownership,
            claim: Claim::first(run.id),
        };
        let no_changes = Changes::default();
        let result = store_step(&db, &driver, (&run, &state), &no_changes, NOW).await;
        assert!(matches!(result, Ok(StepOutcome::Unchanged)), "{name}");

        let mut changes = Changes::default();
        changes.merge(state.decide(Event::Start, NOW));
        let result = store_step(&db, &driver, (&run, &state), &changes, NOW).await;
        let Ok(StepOutcome::Stored(after)) = result else {
            panic!("{name}: {result:?}");
        };

        assert_eq!(after.status, RunStatus::Running);
        let (events, tasks) = written(&db, &run).await;
        assert_eq!(tasks, 2);
        assert_eq!(events[0], "ai.ferroflow.run.started");
        let published = i64::try_from(events.len()).unwrap();
        assert_eq!(after.event_sequence, run.event_sequence + published);
        let mut tx = db.begin_read().await.unwrap();
        let found = store::runs::get(&mut tx, &Caller::local(), run.id).await;
        assert_eq!(found.unwrap(), Some(*after));
    }
}

#[tokio::test]
async fn a_step_of_another_drivers_or_a_deleted_run_writes_nothing() {
    for TestDb { kind: name, db, .. } in databases().await {
        let (run, mut state) = stored(&db).await;
        let ownership = ownership(&db);
        let driver = |fence: i64| {
            let mut claim = Claim::first(run.id);
            claim.fence += fence;
            Driver {
                ownership: &ownership,
                claim,
            }
        };
        let mut changes = Changes::default();
        changes.merge(state.decide(Event::Start, NOW));

        let result = store_step(&db, &driver(1), (&run, &state), &changes, NOW).await;
        assert!(
            matches!(result, Ok(StepOutcome::ClaimLost)),
            "{name}: {result:?}"
        );
        let deleted = delete_run(&db, &driver(1), &run, None, NOW).await;
        assert!(matches!(deleted, Ok(false)), "{name}: {deleted:?}");
        assert_eq!(written(&db, &run).await, (Vec::new(), 0), "{name}");

        let deleted = delete_run(&db, &driver(0), &run, None, NOW).await;
        assert!(matches!(deleted, Ok(true)), "{name}: {deleted:?}");
        let expected = vec!["ai.ferroflow.run.deleted".to_owned()];
        assert_eq!(written(&db, &run).await, (expected, 0), "{name}");
        // The relay takes events away; their ids would be those of the next step.
        clear_outbox(&db).await;
        let result = store_step(&db, &driver(0), (&run, &state), &changes, NOW).await;
        assert!(
            matches!(result, Ok(StepOutcome::RunDeleted)),
            "{name}: {result:?}"
        );
        assert_eq!(written(&db, &run).await, (Vec::new(), 0), "{name}");
    }
}

#[test]
fn the_time_of_a_run_begins_again_with_a_retry() {
    let mut run = run(&experiment("e"), 1);
    let at = Timestamp::from_millis;
    assert_eq!(run.running_since(), None);
    run.set_status(RunStatus::Running, None, at(1_000));
    run.set_status(RunStatus::Failed, None, at(9_000));
    assert_eq!(run.running_since(), Some(at(1_000)));
    run.set_status(RunStatus::Running, None, at(20_000));

    assert_eq!(run.started_at, Some(at(1_000)));
    assert_eq!(run.running_since(), Some(at(20_000)));
}
