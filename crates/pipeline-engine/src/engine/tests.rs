//! The engine driven by hand: tables of events, and properties over random graphs.

mod causes;
mod imports;
mod outline;
mod retries;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferroflow_types::{Namespace, RunId, TaskId, Timestamp, ValueLimit};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::task::{TaskIx, TaskState, Values};
use super::{
    AttemptFailure, CacheAnswer, Decision, Effect, Event, RunEnd, RunFacts, RunPhase, RunState,
};
use crate::artifact::Artifact;
use crate::ir;
use crate::plan::Plan;
use crate::plan::build::build;

/// A pipeline of `sh` tasks: key, extra fields of the task.
fn pipeline(tasks: &Value, more: &Value) -> Arc<Plan> {
    let mut spec = json!({
        "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": tasks}},
        "components": {"sh": {
            "executorLabel": "sh",
            "inputDefinitions": {"parameters": {"in": {"parameterType": "STRING", "isOptional": true}}},
            "outputDefinitions": {"parameters": {"out": {"parameterType": "STRING"}}}
        }},
        "deploymentSpec": {"executors": {"sh": {"container": {"image": "i", "command": ["sh"]}}}}
    });
    for (name, component) in more.as_object().into_iter().flatten() {
        spec["components"][name] = component.clone();
    }
    let spec: ir::PipelineSpec = serde_json::from_value(spec).unwrap();
    Arc::new(build(&spec, None).unwrap())
}

fn task(more: Value) -> Value {
    let mut task = json!({"componentRef": {"name": "sh"}});
    for (name, value) in more.as_object().cloned().unwrap_or_default() {
        task[name] = value;
    }
    task
}

fn facts() -> RunFacts {
    RunFacts {
        run: "7d444840-9dc0-11d1-b245-5ffdce74fad2"
            .parse::<RunId>()
            .unwrap(),
        namespace: Namespace::single_user(),
        resource_name: "p-1".to_owned(),
        display_name: "p".to_owned(),
        parameters: BTreeMap::new(),
        pipeline_root: "/r".to_owned(),
        created_at: Timestamp::EPOCH,
        values: ValueLimit::default(),
        workspace_path: None,
        workspace_claim: None,
        caching: false,
        kubernetes: false,
        entry_points: false,
    }
}

/// A run whose commands end as `outcome` says.
struct TestRun {
    run: RunState,
    now: Timestamp,
    launched: Vec<String>,
}

impl TestRun {
    fn new(plan: Arc<Plan>) -> Self {
        Self::with(plan, facts())
    }

    fn with(plan: Arc<Plan>, facts: RunFacts) -> Self {
        Self {
            run: RunState::new(plan, facts),
            now: Timestamp::EPOCH,
            launched: Vec::new(),
        }
    }

    fn path(&self, ix: TaskIx) -> String {
        self.run
            .task(ix)
            .path
            .trim_start_matches("root.")
            .to_owned()
    }

    fn state(&self, path: &str) -> TaskState {
        let id = TaskId::derive(self.run.facts().run, &format!("root.{path}"));
        self.run
            .task(self.run.find(id).expect("there is such a task"))
            .state
    }

    /// Drives from `event` until nothing is left to do.
    fn drive(
        &mut self,
        event: Event,
        outcome: &dyn Fn(&str, u32) -> Result<Values, AttemptFailure>,
    ) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let decision = self.decide(event);
            for effect in decision.effects.into_iter().rev() {
                events.extend(self.answer(effect, outcome));
            }
        }
    }

    fn decide(&mut self, event: Event) -> Decision {
        self.now = self.now.plus(std::time::Duration::from_millis(1));
        self.run.decide(event, self.now)
    }

    fn answer(
        &mut self,
        effect: Effect,
        outcome: &dyn Fn(&str, u32) -> Result<Values, AttemptFailure>,
    ) -> Option<Event> {
        match effect {
            Effect::Launch { task, attempt } => {
                let (path, task) = (self.path(task), self.run.task(task).id);
                self.launched.push(path.clone());
                Some(Event::AttemptEnded {
                    task,
                    attempt,
                    result: outcome(&path, attempt),
                })
            }
            Effect::WakeAt { task, .. } => Some(Event::RetryDue {
                task: self.run.task(task).id,
            }),
            Effect::LookUpCache { task, .. } => Some(Event::CacheAnswered {
                task: self.run.task(task).id,
                answer: CacheAnswer {
                    fingerprint: "f".to_owned(),
                    found: Err("no earlier task had this fingerprint".to_owned()),
                },
            }),
            Effect::Import { task, uri, .. } => Some(Event::Imported {
                task: self.run.task(task).id,
                result: Ok(Arc::new(imported(uri))),
            }),
            Effect::Stop { .. } => None,
        }
    }

    fn end(&self) -> RunEnd {
        match self.run.phase() {
            RunPhase::Ended(end) => end,
            other => panic!("the run has not ended: {other:?}"),
        }
    }
}

fn imported(uri: String) -> Artifact {
    Artifact {
        id: 1,
        name: "artifact".to_owned(),
        schema_title: "system.Dataset".to_owned(),
        schema_version: "0.0.1".to_owned(),
        uri,
        metadata: Map::new(),
        digest: None,
        stamp: None,
        size_bytes: None,
        custom_path: None,
    }
}

fn good(path: &str) -> Result<Values, AttemptFailure> {
    let parameters = BTreeMap::from([("out".to_owned(), json!(path))]);
    Ok(Values {
        parameters,
        ..Values::default()
    })
}

fn bad() -> Result<Values, AttemptFailure> {
    Err(AttemptFailure::new("ExitCode", "exit code 1"))
}

#[test]
fn a_chain_runs_in_order_and_hands_values_on() {
    let from_a = json!({"parameters": {"in": {"taskOutputParameter":
        {"producerTask": "a", "outputParameterKey": "out"}}}});
    let plan = pipeline(
        &json!({"a": task(json!({})), "b": task(json!({"inputs": from_a}))}),
        &json!({}),
    );
    let mut test_run = TestRun::new(plan);

    test_run.drive(Event::Start, &|path, _| good(path));

    assert_eq!(test_run.launched, ["a", "b"]);
    assert_eq!(test_run.end(), RunEnd::Succeeded);
}

#[test]
fn a_failure_omits_what_needs_it_and_runs_what_does_not() {
    let exit = json!({"dependentTasks": ["a"],
        "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}});
    let tasks = json!({
        "a": task(json!({})),
        "b": task(json!({"dependentTasks": ["a"]})),
        "c": task(json!({})),
        "exit": task(exit)
    });
    let mut test_run = TestRun::new(pipeline(&tasks, &json!({})));

    test_run.drive(Event::Start, &|path, _| {
        if path == "a" { bad() } else { good(path) }
    });

    assert_eq!(test_run.state("b"), TaskState::Omitted);
    assert_eq!(test_run.state("c"), TaskState::Succeeded);
    assert_eq!(test_run.state("exit"), TaskState::Succeeded);
    assert_eq!(test_run.end(), RunEnd::Failed);
    assert_eq!(
        test_run.run.failure().unwrap(),
        "task a failed: exit code 1"
    );
}

#[test]
fn retries_are_counted_and_lost_attempts_are_not() {
    let retry = json!({"retryPolicy": {"maxRetryCount": 1, "backoffDuration": "1s"}});
    let mut test_run = TestRun::new(pipeline(&json!({"a": task(retry)}), &json!({})));

    test_run.drive(Event::Start, &|path, attempt| match attempt {
        1 => Err(AttemptFailure {
            lost: true,
            ..AttemptFailure::new("Lost", "gone")
        }),
        2 => bad(),
        _ => good(path),
    });

    assert_eq!(test_run.launched.len(), 3);
    assert_eq!(test_run.end(), RunEnd::Succeeded);
}

#[test]
fn a_loop_collects_the_outputs_of_its_iterations_in_order() {
    let body = json!({
        "dag": {
            "tasks": {"x": task(json!({"inputs": {"parameters": {"in":
                {"componentInputParameter": "item"}}}}))},
            "outputs": {"parameters": {"outs": {"valueFromParameter":
                {"producerSubtask": "x", "outputParameterKey": "out"}}}}
        },
        "inputDefinitions": {"parameters": {"item": {"parameterType": "STRING"}}},
        "outputDefinitions": {"parameters": {"outs": {"parameterType": "LIST"}}}
    });
    let tasks = json!({"loop": {
        "componentRef": {"name": "body"},
        "iteratorPolicy": {"parallelismLimit": 2},
        "parameterIterator": {"items": {"raw": "[\"a\", \"b\", \"c\"]"}, "itemInput": "item"}
    }});
    let mut test_run = TestRun::new(pipeline(&tasks, &json!({"body": body})));

    test_run.drive(Event::Start, &|path, _| good(path));

    assert_eq!(test_run.end(), RunEnd::Succeeded);
    let id = TaskId::derive(test_run.run.facts().run, "root.loop");
    let outputs = &test_run.run.task(test_run.run.find(id).unwrap()).outputs;
    assert_eq!(
        outputs.parameters["outs"],
        json!(["loop.0.x", "loop.1.x", "loop.2.x"])
    );
}

#[test]
fn a_cancelled_run_starts_nothing_more() {
    let exit = json!({"dependentTasks": ["a"],
        "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}});
    let plan = pipeline(
        &json!({"a": task(json!({})), "exit": task(exit)}),
        &json!({}),
    );
    let mut test_run = TestRun::new(plan);
    let decision = test_run.decide(Event::Start);
    let [Effect::Launch { task, attempt }] = decision.effects[..] else {
        panic!("{decision:?}")
    };
    let id = test_run.run.task(task).id;
    test_run.decide(Event::SlotGranted { task: id, attempt });

    let decision = test_run.decide(Event::Cancel);
    assert_eq!(decision.effects, [Effect::Stop { task, attempt }]);
    test_run.decide(Event::AttemptEnded {
        task: id,
        attempt,
        result: bad(),
    });

    assert_eq!(test_run.state("exit"), TaskState::Canceled);
    assert_eq!(test_run.end(), RunEnd::Canceled);
}

#[test]
fn a_retried_run_keeps_what_succeeded() {
    let tasks = json!({
        "a": task(json!({})),
        "b": task(json!({"dependentTasks": ["a"]})),
        "c": task(json!({"dependentTasks": ["b"]}))
    });
    let mut test_run = TestRun::new(pipeline(&tasks, &json!({})));
    test_run.drive(Event::Start, &|path, _| {
        if path == "b" { bad() } else { good(path) }
    });
    assert_eq!(test_run.end(), RunEnd::Failed);
    test_run.launched.clear();

    test_run.drive(Event::Retry, &|path, _| good(path));

    assert_eq!(test_run.launched, ["b", "c"]);
    assert_eq!(test_run.end(), RunEnd::Succeeded);
}

#[test]
fn a_false_condition_skips_and_a_broken_one_fails() {
    let condition = |text: &str| {
        json!({"triggerPolicy": {"condition": text},
            "inputs": {"parameters": {"in": {"runtimeValue": {"constant": "x"}}}}})
    };
    let tasks = json!({
        "yes": task(condition("inputs.parameter_values['in'] == 'x'")),
        "no": task(condition("inputs.parameter_values['in'] == 'y'")),
        "broken": task(condition("inputs.parameter_values['none'] == 'y'"))
    });
    let mut test_run = TestRun::new(pipeline(&tasks, &json!({})));

    test_run.drive(Event::Start, &|path, _| good(path));

    assert_eq!(test_run.state("yes"), TaskState::Succeeded);
    assert_eq!(test_run.state("no"), TaskState::NotTriggered);
    assert_eq!(test_run.state("broken"), TaskState::Failed);
}

#[test]
fn a_chain_of_thousands_of_skipped_tasks_needs_no_stack() {
    let mut tasks = serde_json::Map::new();
    for number in 0..5000 {
        let before = if number == 0 {
            vec![]
        } else {
            vec![format!("t{:05}", number - 1)]
        };
        tasks.insert(
            format!("t{number:05}"),
            task(json!({"dependentTasks": before})),
        );
    }
    let mut test_run = TestRun::new(pipeline(&Value::Object(tasks), &json!({})));

    test_run.drive(Event::Start, &|_, _| bad());

    assert_eq!(test_run.state("t04999"), TaskState::Omitted);
}

/// Edges of a random graph of `count` tasks: bit `i` of row `j` makes `j` wait for `i` (i < j).
fn random_tasks(rows: &[(u16, bool)]) -> Value {
    let mut tasks = serde_json::Map::new();
    for (at, (bits, completed)) in rows.iter().enumerate() {
        let upstream: Vec<_> = (0..at)
            .filter(|i| bits & (1 << i) != 0)
            .map(|i| format!("t{i}"))
            .collect();
        let strategy = if *completed {
            "ALL_UPSTREAM_TASKS_COMPLETED"
        } else {
            ""
        };
        let more = json!({"dependentTasks": upstream, "triggerPolicy": {"strategy": strategy},
            "retryPolicy": {"maxRetryCount": 1}});
        tasks.insert(format!("t{at}"), task(more));
    }
    Value::Object(tasks)
}

proptest! {
    #[test]
    fn every_run_ends_no_task_starts_early_and_a_restored_run_ends_the_same(
        rows in prop::collection::vec((any::<u16>(), any::<bool>()), 1..12),
        failing in any::<u16>(),
        crash_after in 0_usize..30,
    ) {
        let tasks = random_tasks(&rows);
        let plan = pipeline(&tasks, &json!({}));
        let number = |path: &str| path[1..].parse::<usize>().unwrap();
        let outcome = |path: &str, _| {
            if failing & (1 << number(path)) != 0 { bad() } else { good(path) }
        };
        let mut straight = TestRun::new(Arc::clone(&plan));
        straight.drive(Event::Start, &outcome);
        let end = straight.end();

        // Nobody starts before those it waits for have ended.
        let mut started = BTreeSet::new();
        for path in &straight.launched {
            let at = number(path);
            for i in (0..at).filter(|i| rows[at].0 & (1 << i) != 0) {
                let before = straight.state(&format!("t{i}"));
                prop_assert!(started.contains(&i) || before == TaskState::Omitted);
            }
            started.insert(at);
        }

        // The same run, stored and read back after some steps.
        let mut crashed = TestRun::new(Arc::clone(&plan));
        let mut events = vec![Event::Start];
        for _ in 0..crash_after {
            let Some(event) = events.pop() else { break };
            let effects = crashed.decide(event).effects;
            for effect in effects { events.extend(crashed.answer(effect, &outcome)); }
        }
        let rows: Vec<_> = crashed.run.tasks().map(|(ix, _)| crashed.run.row(ix)).collect();
        let phase = crashed.run.phase();
        let (run, effects) = RunState::restore(plan, facts(), phase, rows).unwrap();
        let mut restored = TestRun { run, now: crashed.now, launched: Vec::new() };
        if phase == RunPhase::New { restored.drive(Event::Start, &outcome); }
        for effect in effects {
            if let Some(event) = restored.answer(effect, &outcome) { restored.drive(event, &outcome); }
        }
        prop_assert_eq!(restored.end(), end);
        for at in 0..started.len() {
            let path = format!("t{at}");
            prop_assert_eq!(restored.state(&path), straight.state(&path));
        }
    }

    #[test]
    fn an_event_repeated_changes_nothing(failing in any::<u16>()) {
        let tasks = random_tasks(&[(0, false), (1, false), (1, true), (6, true)]);
        let mut test_run = TestRun::new(pipeline(&tasks, &json!({})));
        let mut events = vec![Event::Start];
        while let Some(event) = events.pop() {
            let effects = test_run.decide(event.clone()).effects;
            let again = test_run.decide(event);
            prop_assert!(again.changed.is_empty() && again.effects.is_empty());
            for effect in effects {
                let outcome = |path: &str, _| {
                    let at: usize = path[1..].parse().unwrap();
                    if failing & (1 << at) != 0 { bad() } else { good(path) }
                };
                events.extend(test_run.answer(effect, &outcome));
            }
        }
        test_run.end();
    }
}
