//! Runs that are retried, and read back before the retry is over.

use std::cell::RefCell;

use super::*;

/// A loop over two items, one after the other, or a DAG, that runs whether `a` failed or not.
fn after_a(key: &str) -> Arc<Plan> {
    let mut body = json!({"dag": {"tasks": {"x": task(json!({}))}}});
    let mut second = json!({
        "componentRef": {"name": "body"},
        "dependentTasks": ["a"],
        "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    });
    if key == "loop" {
        let item = json!({"parameters": {"item": {"parameterType": "STRING"}}});
        body["inputDefinitions"] = item;
        second["iteratorPolicy"] = json!({"parallelismLimit": 1});
        second["parameterIterator"] =
            json!({"items": {"raw": "[\"u\", \"v\"]"}, "itemInput": "item"});
    }
    let tasks = json!({"a": task(json!({})), key: second});
    pipeline(&tasks, &json!({"body": body}))
}

/// Paths of launched commands and numbers of their attempts.
#[derive(Default)]
struct Launches(RefCell<Vec<(String, u32)>>);

impl Launches {
    /// Adds the launch, which ends well.
    fn end_well(&self, path: &str, attempt: u32) -> Result<Values, AttemptFailure> {
        self.add(path, attempt);
        good(path)
    }

    fn add(&self, path: &str, attempt: u32) {
        self.0.borrow_mut().push((path.to_owned(), attempt));
    }

    fn take(&self) -> Vec<(String, u32)> {
        let mut launches = self.0.take();
        launches.sort();
        launches
    }
}

/// What is stored of a run, read back.
fn restored(test_run: &TestRun, phase: RunPhase) -> (TestRun, Vec<Effect>) {
    let state = &test_run.run;
    let rows = state.tasks().map(|(ix, _)| state.row(ix)).collect();
    let (run, effects) = RunState::restore(Arc::clone(&state.plan), facts(), phase, rows).unwrap();
    let restored = TestRun {
        run,
        now: test_run.now,
        launched: Vec::new(),
    };
    (restored, effects)
}

/// A run of [`after_a`] in which `a` fails, and the launches of it.
fn failed_run(key: &str) -> (TestRun, Vec<(String, u32)>) {
    let launches = Launches::default();
    let mut test_run = TestRun::new(after_a(key));
    test_run.drive(Event::Start, &|path, attempt| {
        launches.add(path, attempt);
        if path == "a" { bad() } else { good(path) }
    });
    assert_eq!(test_run.end(), RunEnd::Failed);
    (test_run, launches.take())
}

/// Drives what was read back to its end.
fn go_on(
    restored: &mut TestRun,
    effects: Vec<Effect>,
    outcome: &dyn Fn(&str, u32) -> Result<Values, AttemptFailure>,
) {
    for effect in effects {
        let event = restored.answer(effect, outcome).unwrap();
        restored.drive(event, outcome);
    }
}

fn next_attempts(launches: Vec<(String, u32)>) -> Vec<(String, u32)> {
    let next = |(path, attempt)| (path, attempt + 1);
    launches.into_iter().map(next).collect()
}

#[test]
fn a_loop_that_waits_again_goes_on_counting_attempts_after_a_restart() {
    let (mut test_run, before) = failed_run("loop");
    let decision = test_run.decide(Event::Retry);
    assert!(matches!(decision.effects[..], [Effect::Launch { .. }]));
    assert_eq!(test_run.state("loop"), TaskState::Pending);

    let (mut restored, effects) = restored(&test_run, RunPhase::Running);
    let launches = Launches::default();
    let outcome = |path: &str, attempt| launches.end_well(path, attempt);
    go_on(&mut restored, effects, &outcome);

    assert_eq!(restored.end(), RunEnd::Succeeded);
    assert_eq!(launches.take(), next_attempts(before));
}

#[test]
fn a_loop_that_started_again_runs_every_iteration_after_a_restart() {
    let (mut test_run, before) = failed_run("loop");
    let launches = Launches::default();
    let outcome = |path: &str, attempt| launches.end_well(path, attempt);
    let mut retry = test_run.decide(Event::Retry);
    let a_ended = test_run.answer(retry.effects.remove(0), &outcome).unwrap();
    test_run.decide(a_ended);
    assert_eq!(test_run.state("loop.0.x"), TaskState::Queued);
    assert_eq!(test_run.state("loop.1"), TaskState::Pending);

    let (mut restored, effects) = restored(&test_run, RunPhase::Running);
    go_on(&mut restored, effects, &outcome);

    assert_eq!(restored.end(), RunEnd::Succeeded);
    assert_eq!(launches.take(), next_attempts(before));
}

#[test]
fn iterations_that_wait_again_are_cancelled_and_run_by_the_next_retry() {
    let (mut test_run, _) = failed_run("loop");
    let mut retry = test_run.decide(Event::Retry);
    let a_ended = test_run.answer(retry.effects.remove(0), &|path, _| good(path));
    let launched = test_run.decide(a_ended.unwrap()).effects;
    let [Effect::Launch { task, attempt }] = launched[..] else {
        panic!("{launched:?}");
    };
    let task = test_run.run.task(task).id;
    test_run.decide(Event::SlotGranted { task, attempt });
    let stopped = test_run.decide(Event::Cancel).effects;
    assert!(matches!(stopped[..], [Effect::Stop { .. }]), "{stopped:?}");
    assert_eq!(test_run.state("loop"), TaskState::Running);

    for effect in launched {
        let event = test_run.answer(effect, &|path, _| good(path)).unwrap();
        test_run.decide(event);
    }

    assert_eq!(test_run.end(), RunEnd::Canceled);
    assert_eq!(test_run.state("loop.1"), TaskState::Canceled);
    let (mut restored, _) = restored(&test_run, RunPhase::Ended(RunEnd::Canceled));
    let launches = Launches::default();
    restored.drive(Event::Retry, &|path, attempt| {
        launches.end_well(path, attempt)
    });
    assert_eq!(restored.end(), RunEnd::Succeeded);
    assert_eq!(launches.take(), [("loop.1.x".to_owned(), 2)]);
}

#[test]
fn a_dag_that_was_reset_and_not_started_again_does_not_keep_its_former_results() {
    let (mut test_run, _) = failed_run("dag");
    let mut retry = test_run.decide(Event::Retry);
    let Effect::Launch { task, attempt } = retry.effects[0] else {
        panic!("{retry:?}");
    };
    let id = test_run.run.task(task).id;
    test_run.decide(Event::SlotGranted { task: id, attempt });
    test_run.decide(Event::Cancel);
    assert_eq!(test_run.state("dag"), TaskState::Canceled);
    // It had collected its outputs already.
    let ended = test_run.answer(retry.effects.remove(0), &|path, _| good(path));
    test_run.decide(ended.unwrap());
    assert_eq!(test_run.end(), RunEnd::Canceled);

    let launches = Launches::default();
    test_run.drive(Event::Retry, &|path, attempt| {
        launches.end_well(path, attempt)
    });
    assert_eq!(test_run.end(), RunEnd::Succeeded);
    assert!(launches.take().contains(&("dag.x".to_owned(), 2)));
}

#[test]
fn a_failure_of_a_former_start_is_no_cause() {
    let mut test_run = TestRun::new(after_a("dag"));
    test_run.drive(Event::Start, &|_, _| bad());
    let mut retry = test_run.decide(Event::Retry);
    let ended = test_run.answer(retry.effects.remove(0), &|_, _| bad());
    test_run.decide(Event::Cancel);
    test_run.decide(ended.unwrap());
    assert_eq!(test_run.state("dag.x"), TaskState::Failed);
    assert_eq!(test_run.state("dag"), TaskState::Canceled);
    assert_eq!(test_run.run.failure(), None);
}

#[test]
fn a_loop_whose_items_were_refused_does_not_succeed_by_a_retry() {
    let body = json!({
        "dag": {"tasks": {"x": task(json!({}))}},
        "inputDefinitions": {"parameters": {
            "list": {"parameterType": "LIST"}, "item": {"parameterType": "STRING"}
        }}
    });
    let list = json!({"taskOutputParameter": {"producerTask": "a", "outputParameterKey": "out"}});
    let tasks = json!({
        "a": task(json!({})),
        "loop": {
            "componentRef": {"name": "body"},
            "dependentTasks": ["a"],
            "inputs": {"parameters": {"list": list}},
            "parameterIterator": {"items": {"inputParameter": "list"}, "itemInput": "item"}
        }
    });
    let mut test_run = TestRun::new(pipeline(&tasks, &json!({"body": body})));
    test_run.drive(Event::Start, &|path, _| good(path));
    assert_eq!(test_run.end(), RunEnd::Failed);
    assert_eq!(test_run.state("loop"), TaskState::Failed);

    let (mut restored, _) = restored(&test_run, RunPhase::Ended(RunEnd::Failed));
    restored.drive(Event::Retry, &|path, _| good(path));

    assert_eq!(restored.state("loop"), TaskState::Failed);
    assert_eq!(restored.end(), RunEnd::Failed);
}
