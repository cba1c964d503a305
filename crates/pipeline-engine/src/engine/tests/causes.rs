//! What a run and an exit task are told of a failure.

use super::*;

/// Two tasks in an exit handler, and the exit task that is told how they ended, inside the task
/// `around`.
fn exit_handler(around: &Value) -> Arc<Plan> {
    let status = json!({"parameters": {"status": {"taskFinalStatus":
        {"producerTask": "exit-handler-1"}}}});
    let mut body = json!({"dag": {"tasks": {
        "exit-handler-1": {"componentRef": {"name": "guarded"}},
        "tell": {
            "componentRef": {"name": "tell"},
            "dependentTasks": ["exit-handler-1"], "inputs": status,
            "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
        }
    }}});
    let guarded = json!({"dag": {"tasks": {
        "early": task(json!({})),
        "late": task(json!({"dependentTasks": ["early"]})),
    }}});
    if around.get("parameterIterator").is_some() {
        body["inputDefinitions"] = json!({"parameters": {"item": {"parameterType": "STRING"}}});
    }
    let tell = json!({
        "executorLabel": "sh",
        "inputDefinitions": {"parameters": {"status": {"parameterType": "TASK_FINAL_STATUS"}}}
    });
    let more = json!({"body": body, "guarded": guarded, "tell": tell});
    pipeline(&json!({"around": around}), &more)
}

fn exit_status_input(test_run: &TestRun, path: &str) -> Value {
    let id = TaskId::derive(test_run.run.facts().run, &format!("root.{path}"));
    let task = test_run.run.task(test_run.run.find(id).unwrap());
    task.inputs.parameters["status"].clone()
}

fn raised() -> Result<Values, AttemptFailure> {
    let exception = "AssertionError: only 4 words, wanted 9";
    Err(AttemptFailure::new("ExitCode", exception))
}

#[test]
fn an_exit_task_is_told_which_task_failed_and_why() {
    let around = json!({"componentRef": {"name": "body"}});
    let mut test_run = TestRun::new(exit_handler(&around));

    test_run.drive(Event::Start, &|path, _| {
        if path.ends_with("late") {
            raised()
        } else {
            good(path)
        }
    });

    assert_eq!(
        exit_status_input(&test_run, "around.tell"),
        json!({
            "state": "FAILED", "pipelineJobResourceName": "p-1",
            "pipelineTaskName": "exit-handler-1",
            "error": {"code": 13, "message": "task around.exit-handler-1.late failed: \
                AssertionError: only 4 words, wanted 9"},
        })
    );
    assert_eq!(
        test_run.run.failure().unwrap(),
        "task around.exit-handler-1.late failed: AssertionError: only 4 words, wanted 9"
    );
}

#[test]
fn an_exit_task_in_a_loop_is_told_of_its_own_iteration() {
    let around = json!({
        "componentRef": {"name": "body"},
        "parameterIterator": {"items": {"raw": "[\"a\", \"b\", \"c\"]"}, "itemInput": "item"}
    });
    let mut test_run = TestRun::new(exit_handler(&around));

    test_run.drive(Event::Start, &|path, _| match path {
        "around.1.exit-handler-1.early" => raised(),
        _ => good(path),
    });

    let failed = exit_status_input(&test_run, "around.1.tell");
    assert_eq!(failed["state"], "FAILED");
    assert_eq!(failed["pipelineTaskName"], "exit-handler-1");
    assert_eq!(
        failed["error"]["message"],
        "task around.1.exit-handler-1.early failed: AssertionError: only 4 words, wanted 9"
    );
    let well = exit_status_input(&test_run, "around.0.tell");
    assert_eq!(
        (&well["state"], &well["error"]),
        (&json!("COMPLETE"), &json!({}))
    );
}

#[test]
fn an_exit_task_that_fails_itself_is_not_what_it_is_told_of() {
    let around = json!({"componentRef": {"name": "body"}});
    let mut test_run = TestRun::new(exit_handler(&around));

    test_run.drive(Event::Start, &|path, _| {
        if path == "around.tell" {
            raised()
        } else {
            good(path)
        }
    });

    assert_eq!(
        exit_status_input(&test_run, "around.tell")["error"],
        json!({})
    );
    assert_eq!(
        test_run.run.failure().unwrap(),
        "task around.tell failed: AssertionError: only 4 words, wanted 9"
    );
}

#[test]
fn the_task_that_failed_first_is_the_cause_and_the_others_are_counted() {
    let tasks = json!({
        "a": task(json!({"dependentTasks": ["z"],
            "triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}})),
        "z": task(json!({})),
    });
    let mut test_run = TestRun::new(pipeline(&tasks, &json!({})));

    test_run.drive(Event::Start, &|path, _| {
        Err(AttemptFailure::new("ExitCode", &format!("{path} broke")))
    });

    assert_eq!(
        test_run.run.failure().unwrap(),
        "task z failed: z broke (and 1 more task failed)"
    );
}

#[test]
fn a_run_whose_time_is_up_names_what_it_was_spent_on() {
    let tasks = json!({"quick": task(json!({})), "slow": task(json!({}))});
    let mut test_run = TestRun::new(pipeline(&tasks, &json!({})));
    let begun = test_run.decide(Event::Start);
    let launched = begun.effects.into_iter().map(|effect| match effect {
        Effect::Launch { task, attempt } => (task, attempt),
        other => panic!("{other:?}"),
    });
    let launched: Vec<_> = launched.collect();
    for &(task, attempt) in &launched {
        let task = test_run.run.task(task).id;
        test_run.decide(Event::SlotGranted { task, attempt });
    }
    let end = |test_run: &mut TestRun, at: usize, result| {
        let (task, attempt) = launched[at];
        let task = test_run.run.task(task).id;
        test_run.decide(Event::AttemptEnded {
            task,
            attempt,
            result,
        });
    };
    end(&mut test_run, 0, good("quick"));

    test_run.decide(Event::DeadlinePassed);
    end(
        &mut test_run,
        1,
        Err(AttemptFailure::new("Canceled", "it was stopped")),
    );

    assert_eq!(
        test_run.run.failure().unwrap(),
        "the run took longer than its activeDeadlineSeconds, task slow was stopped"
    );
}
