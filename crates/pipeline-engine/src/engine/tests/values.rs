//! What values are on their way: types of items, texts that look like templates, inputs that nobody
//! reads, tasks whose keys look like something else.

use super::*;
use crate::invocation::{self, AttemptPaths, Invocation};

/// A component with a command of these words; each input and output has a type.
fn component(inputs: &Value, outputs: &Value) -> Value {
    let typed = |types: &Value| {
        let types = types.as_object().cloned().unwrap_or_default();
        let types = types.into_iter().map(|(name, kind)| {
            let optional = json!({"parameterType": kind, "isOptional": false});
            (name, optional)
        });
        json!({"parameters": types.collect::<Map<_, _>>()})
    };
    json!({"executorLabel": "echo", "inputDefinitions": typed(inputs), "outputDefinitions": typed(outputs)})
}

fn dag(inputs: &Value, tasks: &Value) -> Value {
    let mut component_spec = component(inputs, &json!({}));
    component_spec["dag"] = json!({"tasks": tasks});
    component_spec
        .as_object_mut()
        .unwrap()
        .remove("executorLabel");
    component_spec
}

fn of_parent(name: &str) -> Value {
    json!({"componentInputParameter": name})
}

/// A plan whose executor `echo` has this container.
fn plan(root: &Value, components: &Value, container: &Value) -> Result<Plan, Vec<String>> {
    let spec = json!({
        "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0", "root": root,
        "components": components, "deploymentSpec": {"executors": {"echo": {"container": container}}}
    });
    let spec: ir::PipelineSpec = serde_json::from_value(spec).unwrap();
    build(&spec, None).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn echo_container() -> Value {
    json!({"image": "i", "command": ["echo", "{{$.inputs.parameters['x']}}"]})
}

/// Runs the plan and gives the words of each command, by path.
fn commands(plan: Plan, given: BTreeMap<String, Value>) -> (TestRun, BTreeMap<String, Invocation>) {
    let facts = RunFacts {
        parameters: given,
        ..facts()
    };
    let mut test_run = TestRun::with(Arc::new(plan), facts);
    let paths = AttemptPaths {
        outputs_dir: "/o".to_owned(),
        metadata_file: "/o/report.json".to_owned(),
        copies_dir: None,
    };
    let mut invocations = BTreeMap::new();
    let mut events = vec![Event::Start];
    while let Some(event) = events.pop() {
        for effect in test_run.decide(event).effects {
            if let Effect::Launch { task, .. } = effect {
                let invocation = invocation::build(&test_run.run, task, &paths).unwrap();
                invocations.insert(test_run.path(task), invocation);
            }
            events.extend(test_run.answer(effect, &|path, _| good(path)));
        }
    }
    (test_run, invocations)
}

#[test]
fn items_of_a_loop_keep_their_type_and_become_text_only_where_text_is_wanted() {
    // The compiler writes STRING for items whose type it does not know.
    let use_item = |component: &str| {
        json!({"componentRef": {"name": component},
            "inputs": {"parameters": {"x": of_parent("item")}}})
    };
    let inner = json!({"number": use_item("number"), "text": use_item("text")});
    let guarded = json!({"componentRef": {"name": "inner"},
        "inputs": {"parameters": {"item": of_parent("item")}},
        // Compiled for a text, which the item is said to be.
        "triggerPolicy": {"condition": "inputs.parameter_values['item'] != '2'"}});
    let components = json!({
        "body": dag(&json!({"item": "STRING"}), &json!({"guarded": guarded})),
        "inner": dag(&json!({"item": "STRING"}), &inner),
        "number": component(&json!({"x": "NUMBER_INTEGER"}), &json!({})),
        "text": component(&json!({"x": "STRING"}), &json!({})),
    });
    let root = json!({
        "inputDefinitions": {"parameters": {"list": {"parameterType": "LIST"}}},
        "dag": {"tasks": {"loop": {
            "componentRef": {"name": "body"},
            "inputs": {"parameters": {"list": of_parent("list")}},
            "parameterIterator": {"items": {"inputParameter": "list"}, "itemInput": "item"}}}}
    });
    let given = BTreeMap::from([("list".to_owned(), json!([1, 2, 3]))]);

    let (test_run, invocations) =
        commands(plan(&root, &components, &echo_container()).unwrap(), given);

    assert_eq!(test_run.end(), RunEnd::Succeeded);
    assert_eq!(test_run.state("loop.1.guarded"), TaskState::NotTriggered);
    let input = |path: &str| invocations[path].given["x"].clone();
    assert_eq!(input("loop.0.guarded.number"), json!(1));
    assert_eq!(input("loop.2.guarded.text"), json!("3"));
}

#[test]
fn an_item_that_a_command_cannot_take_fails_its_iteration_and_says_so() {
    let components = json!({"number": component(&json!({"x": "NUMBER_INTEGER"}), &json!({}))});
    let root = json!({"dag": {"tasks": {"loop": {
        "componentRef": {"name": "number"},
        "parameterIterator": {"items": {"raw": "[1, \"a\"]"}, "itemInput": "x"}}}}});

    let (test_run, _) = commands(
        plan(&root, &components, &echo_container()).unwrap(),
        BTreeMap::new(),
    );

    assert_eq!(test_run.state("loop.0"), TaskState::Succeeded);
    let problem = test_run.run.failure().unwrap();
    assert!(
        problem.contains("x: expected an integer, found \"a\""),
        "{problem}"
    );
}

#[test]
fn what_a_parameter_contains_is_no_template() {
    let evil = "{{$.pipeline_job_uuid}} {{$.inputs.parameters['y']}} $(HOME) $$";
    let components = json!({
        "inner": dag(&json!({"x": "STRING"}), &json!({"t": {"componentRef": {"name": "c"},
            "inputs": {"parameters": {"x": of_parent("x"), "y": {"runtimeValue": {"constant":
                "<{{$.inputs.parameters['x']}}>"}}}}}})),
        "c": component(&json!({"x": "STRING", "y": "STRING"}), &json!({})),
    });
    let root = json!({
        "inputDefinitions": {"parameters": {"x": {"parameterType": "STRING"}}},
        "dag": {"tasks": {"inner": {"componentRef": {"name": "inner"},
            "inputs": {"parameters": {"x": of_parent("x")}}}}}
    });
    let container = json!({"image": "i", "command": ["{{$}}", "{{$.inputs.parameters['y']}}"],
        "env": [{"name": "X", "value": "$(A) {{$.inputs.parameters['x']}}"}]});
    let given = BTreeMap::from([("x".to_owned(), json!(evil))]);

    let (_, invocations) = commands(plan(&root, &components, &container).unwrap(), given);

    let invocation = &invocations["inner.t"];
    let executor_input: Value = serde_json::from_str(&invocation.argv[0]).unwrap();
    assert_eq!(executor_input["inputs"]["parameterValues"]["x"], evil);
    assert_eq!(invocation.argv[1], format!("<{evil}>"));
    // What the pipeline's author wrote is expanded by the runtime, what came in is not.
    let doubled = evil.replace('$', "$$");
    assert_eq!(
        invocation.env,
        [("X".to_owned(), format!("$(A) {doubled}"))]
    );
}

#[test]
fn an_importers_uri_is_no_template_either() {
    let components = json!({"import": {"executorLabel": "import",
        "inputDefinitions": {"parameters": {"uri": {"parameterType": "STRING"}}},
        "outputDefinitions": {"artifacts": {"artifact": {"artifactType":
            {"schemaTitle": "system.Dataset"}}}}}});
    let spec = json!({
        "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0", "components": components,
        "root": {"inputDefinitions": {"parameters": {"uri": {"parameterType": "STRING"}}},
            "dag": {"tasks": {"t": {"componentRef": {"name": "import"},
                "inputs": {"parameters": {"uri": of_parent("uri")}}}}}},
        "deploymentSpec": {"executors": {"import": {"importer":
            {"artifactUri": {"runtimeParameter": "uri"}}}}}
    });
    let spec: ir::PipelineSpec = serde_json::from_value(spec).unwrap();
    let uri = "/data/{{$.pipeline_job_uuid}}";
    let given = BTreeMap::from([("uri".to_owned(), json!(uri))]);

    let (test_run, _) = commands(build(&spec, None).unwrap(), given);

    let id = TaskId::derive(test_run.run.facts().run, "root.t");
    let outputs = &test_run.run.task(test_run.run.find(id).unwrap()).outputs;
    assert_eq!(outputs.artifacts["artifact"][0].uri, uri);
}

#[test]
fn constants_may_name_the_executors_input_and_output() {
    let constant = |text: &str| json!({"runtimeValue": {"constant": text}});
    let components = json!({"c": component(
        &json!({"x": "STRING", "path": "STRING", "n": "STRING"}), &json!({"out": "STRING"}))});
    let root = json!({"dag": {"tasks": {"t": {"componentRef": {"name": "c"}, "inputs": {"parameters": {
        "x": constant("{{$}}"), "path": constant("to {{$.outputs.output_file}}"),
        "n": constant("{{$.outputs.parameters['out'].output_file}}")}}}}}});

    let (_, invocations) = commands(
        plan(&root, &components, &echo_container()).unwrap(),
        BTreeMap::new(),
    );

    let given = &invocations["t"].given;
    assert_eq!(given["path"], "to /o/report.json");
    assert_eq!(given["n"], "/o/out");
    let executor_input: Value = serde_json::from_str(&invocations["t"].argv[1]).unwrap();
    assert_eq!(executor_input["outputs"]["outputFile"], "/o/report.json");
}

#[test]
fn inputs_of_nested_dags_that_nothing_reads_are_not_required() {
    let leaf = |inputs: &Value| json!({"componentRef": {"name": "leaf"}, "inputs": {"parameters": inputs}});
    let call = |name: &str, inputs: &Value| json!({"componentRef": {"name": name}, "inputs": {"parameters": inputs}});
    let components = |inner: &Value| {
        json!({
            "leaf": component(&json!({"x": "STRING"}), &json!({})),
            // Hands `unused` on to a DAG in which nothing reads it.
            "outer": dag(&json!({"x": "STRING", "unused": "NUMBER_INTEGER"}), &json!({
                "inner": call("inner", &json!({"x": of_parent("x"), "unused": of_parent("unused")}))})),
            "inner": dag(&json!({"x": "STRING", "unused": "NUMBER_INTEGER"}), inner),
        })
    };
    let quiet = components(&json!({"t": leaf(&json!({"x": of_parent("x")}))}));
    let constant = json!({"x": {"runtimeValue": {"constant": "a"}}});
    let root = json!({"dag": {"tasks": {"outer": call("outer", &constant)}}});

    let (test_run, invocations) = commands(
        plan(&root, &quiet, &echo_container()).unwrap(),
        BTreeMap::new(),
    );

    assert_eq!(test_run.end(), RunEnd::Succeeded);
    assert_eq!(invocations["outer.inner.t"].argv, ["echo", "a"]);
    // The SDK refers to an input that is not there for what it leaks out of a loop.
    let leaked =
        json!({"x": {"runtimeValue": {"constant": "a"}}, "unused": of_parent("loop-item-2")});
    let leaking = json!({"dag": {"tasks": {"outer": call("outer", &leaked)}}});
    assert!(plan(&leaking, &quiet, &echo_container()).is_ok());
    let reading = components(&json!({"t": leaf(&json!({"x": of_parent("unused")}))}));
    let faults = plan(&leaking, &reading, &echo_container()).unwrap_err();
    assert!(
        faults[0].contains("has no input parameter \"loop-item-2\""),
        "{faults:?}"
    );
    let faults = plan(&root, &reading, &echo_container()).unwrap_err();
    assert!(
        faults[0].contains("requires the parameter \"unused\""),
        "{faults:?}"
    );
    let nothing = json!({"dag": {"tasks": {"outer": call("outer", &json!({}))}}});
    let faults = plan(&nothing, &quiet, &echo_container()).unwrap_err();
    assert!(
        faults[0].contains("requires the parameter \"x\""),
        "{faults:?}"
    );
}

#[test]
fn keys_that_look_like_paths_have_ids_of_their_own() {
    let body = json!({"dag": {"tasks": {"x": task(json!({}))}},
        "inputDefinitions": {"parameters": {"item": {"parameterType": "STRING"}}}});
    let iterated = json!({"componentRef": {"name": "body"},
        "parameterIterator": {"items": {"raw": "[1, 2]"}, "itemInput": "item"}});
    let tasks = json!({"for-loop-2": iterated, "for-loop-2.0": task(json!({})),
        "for-loop-2.0.x": task(json!({})), "a%2Eb": task(json!({})), "a.b": task(json!({}))});
    let plan = pipeline(&tasks, &json!({"body": body}));
    let mut test_run = TestRun::new(Arc::clone(&plan));

    test_run.drive(Event::Start, &|path, _| good(path));

    assert_eq!(test_run.end(), RunEnd::Succeeded);
    assert_eq!(test_run.launched.len(), 6);
    let mut ids: Vec<_> = test_run.run.tasks().map(|(_, task)| task.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), test_run.run.tasks().count());
}

#[test]
fn tasks_that_an_earlier_release_stored_keep_their_ids() {
    let tasks = json!({"a.b": task(json!({})), "c": task(json!({"dependentTasks": ["a.b"]}))});
    let plan = pipeline(&tasks, &json!({}));
    let mut test_run = TestRun::new(Arc::clone(&plan));
    test_run.decide(Event::Start);
    let run = test_run.run.facts().run;
    let mut rows: Vec<_> = test_run
        .run
        .tasks()
        .map(|(ix, _)| test_run.run.row(ix))
        .collect();
    let stored = TaskId::derive(run, "root.a.b");
    for row in &mut rows {
        if row.path == "root.a%2Eb" {
            (row.path, row.id) = ("root.a.b".to_owned(), stored);
        }
    }

    let (run, effects) = RunState::restore(plan, facts(), RunPhase::Running, rows).unwrap();

    assert!(run.find(stored).is_some());
    let mut restored = TestRun {
        run,
        now: test_run.now,
        launched: Vec::new(),
    };
    for effect in effects {
        let event = restored.answer(effect, &|path, _| good(path)).unwrap();
        restored.drive(event, &|path, _| good(path));
    }
    assert_eq!(restored.launched, ["a.b", "c"]);
    assert_eq!(restored.end(), RunEnd::Succeeded);
}

#[test]
fn a_task_is_told_its_configuration_instead_of_being_given_it() {
    let mut trainer = component(&json!({"config": "TASK_CONFIG", "x": "STRING"}), &json!({}));
    trainer["taskConfigPassthroughs"] = json!([
        {"field": "RESOURCES"}, {"field": "ENV", "applyToTask": true}]);
    let root = json!({"dag": {"tasks": {"t": {"componentRef": {"name": "c"}, "inputs": {"parameters":
        {"x": {"runtimeValue": {"constant": "4Gi"}}}}}}}});
    let container = json!({"image": "i", "command": ["sh", "{{$}}"],
        "resources": {"resourceCpuLimit": "2", "resourceMemoryLimit": "{{$.inputs.parameters['x']}}"},
        "env": [{"name": "A", "value": "1"}]});

    let plan = plan(&root, &json!({"c": trainer}), &container).unwrap();
    let (_, invocations) = commands(plan, BTreeMap::new());

    let invocation = &invocations["t"];
    let executor_input: Value = serde_json::from_str(&invocation.argv[1]).unwrap();
    let config = &executor_input["inputs"]["parameterValues"]["config"];
    assert_eq!(
        config["resources"],
        json!({"limits": {"cpu": "2", "memory": "4Gi"}})
    );
    assert_eq!(config["env"], json!([{"name": "A", "value": "1"}]));
    assert_eq!(config["affinity"], Value::Null);
    assert_eq!(
        (invocation.cpu_millis, invocation.memory_bytes),
        (None, None)
    );
    assert_eq!(invocation.env, [("A".to_owned(), "1".to_owned())]);
}
