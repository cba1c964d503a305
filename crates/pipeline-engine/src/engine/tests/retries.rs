//! Runs that are retried, and read back before the retry is over.

use std::cell::RefCell;

use super::*;

/// A loop over two items that runs whether `a` failed or not.
fn loop_after_a() -> Arc<Plan> {
    let body = json!({
        "dag": {"tasks": {"x": task(json!({}))}},
        "inputDefinitions": {"parameters": {"item": {"parameterType": "STRING"}}}
    });
    let tasks = json!({
        "a": task(json!({})),
        "loop": {
            "componentRef": {"name": "body"},
            "dependentTasks": ["a"],
            "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"},
            "parameterIterator": {"items": {"raw": "[\"u\", \"v\"]"}, "itemInput": "item"}
        }
    });
    pipeline(&tasks, &json!({"body": body}))
}

#[test]
fn a_loop_that_waits_again_goes_on_counting_attempts_after_a_restart() {
    let plan = loop_after_a();
    let attempts = RefCell::new(Vec::new());
    let launched = |path: &str, attempt| attempts.borrow_mut().push((path.to_owned(), attempt));
    let mut test_run = TestRun::new(Arc::clone(&plan));
    test_run.drive(Event::Start, &|path, attempt| {
        launched(path, attempt);
        if path == "a" { bad() } else { good(path) }
    });
    assert_eq!(test_run.end(), RunEnd::Failed);
    let mut before = attempts.take();
    let decision = test_run.decide(Event::Retry);
    assert!(matches!(decision.effects[..], [Effect::Launch { .. }]));
    assert_eq!(test_run.state("loop"), TaskState::Pending);

    let rows = test_run.run.tasks().map(|(ix, _)| test_run.run.row(ix));
    let restored = RunState::restore(plan, facts(), RunPhase::Running, rows.collect());
    let (run, effects) = restored.unwrap();
    let mut restored = TestRun {
        run,
        now: test_run.now,
        launched: Vec::new(),
    };
    let outcome = |path: &str, attempt| {
        launched(path, attempt);
        good(path)
    };
    for effect in effects {
        let event = restored.answer(effect, &outcome).unwrap();
        restored.drive(event, &outcome);
    }

    assert_eq!(restored.end(), RunEnd::Succeeded);
    let mut after = attempts.take();
    before.sort();
    after.sort();
    let next = before
        .into_iter()
        .map(|(path, attempt)| (path, attempt + 1));
    assert_eq!(after, next.collect::<Vec<_>>());
    assert_eq!(after.len(), 3);
}
