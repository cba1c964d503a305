//! What is refused, and where.

use serde_json::{Value, json};

use super::build;
use crate::ir;
use crate::plan::Body;

fn spec() -> Value {
    json!({
        "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {
            "a": {"componentRef": {"name": "c"}},
            "b": {"componentRef": {"name": "c"}, "dependentTasks": ["a"]}
        }}},
        "components": {"c": {"executorLabel": "e",
            "outputDefinitions": {"parameters": {"n": {"parameterType": "NUMBER_INTEGER"}}}}},
        "deploymentSpec": {"executors": {"e": {"container": {"image": "i", "command": ["sh"]}}}}
    })
}

fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut spec = spec();
    change(&mut spec);
    let spec: ir::PipelineSpec = serde_json::from_value(spec).unwrap();
    match build(&spec, None) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_good_pipeline_has_its_edges_both_ways() {
    let spec: ir::PipelineSpec = serde_json::from_value(spec()).unwrap();

    let plan = build(&spec, None).unwrap();

    let Body::Dag(dag) = &plan.component(plan.root).body else {
        panic!("the root is a DAG")
    };
    assert_eq!(dag.tasks[1].upstream.len(), 1);
    assert_eq!(dag.tasks[0].downstream.len(), 1);
}

#[test]
fn a_dag_is_found_by_its_whole_name() {
    for name in ["root", "comp-root", "x.c", "c-c"] {
        let mut spec = spec();
        spec["components"][name] =
            json!({"dag": {"tasks": {"inner": {"componentRef": {"name": "c"}}}}});
        spec["root"]["dag"]["tasks"]["x"] = json!({"componentRef": {"name": name}});
        let spec: ir::PipelineSpec = serde_json::from_value(spec).unwrap();

        let plan = build(&spec, None).unwrap();

        let Body::Dag(root) = &plan.component(plan.root).body else {
            panic!("the root is a DAG")
        };
        assert_eq!(root.tasks.len(), 3, "{name}");
        let outer = root.tasks.iter().find(|task| task.key == "x").unwrap();
        let Body::Dag(dag) = &plan.component(outer.component).body else {
            panic!("{name} is a DAG")
        };
        let tasks: Vec<_> = dag.tasks.iter().map(|task| task.key.as_str()).collect();
        assert_eq!(tasks, ["inner"], "{name}");
    }
}

#[test]
fn each_fault_is_told_with_its_place() {
    type Change = fn(&mut Value);
    let task = "/root/dag/tasks/b";
    let cases: [(Change, &str); 10] = [
        (
            |s| s["pipelineInfo"]["name"] = json!("Bad Name"),
            "pipelineInfo.name",
        ),
        (
            |s| s["schemaVersion"] = json!("2.0.0"),
            "schemaVersion: KFP only supports schema version 2.1.0, but the pipeline spec has version 2.0.0",
        ),
        (
            |s| s["root"]["dag"]["tasks"]["b"]["componentRef"]["name"] = json!("x"),
            "root.dag.tasks.b.componentRef.name",
        ),
        (
            |s| s["root"]["dag"]["tasks"]["b"]["dependentTasks"] = json!(["x"]),
            "root.dag.tasks.b.dependentTasks",
        ),
        (
            |s| s["deploymentSpec"]["executors"] = json!({}),
            "components.c.executorLabel: deploymentSpec.executors has no \"e\"",
        ),
        (
            |s| s["root"]["dag"]["tasks"]["a"]["dependentTasks"] = json!(["b"]),
            "root.dag.tasks: tasks wait for one another: a → b → a",
        ),
        (
            |s| {
                s["components"]["c"]["inputDefinitions"] =
                    json!({"parameters": {"q": {"parameterType": "LIST"}}});
            },
            "requires the parameter \"q\"",
        ),
        (
            |s| {
                s["root"]["dag"]["tasks"]["b"]["inputs"] =
                    json!({"parameters": {"q": {"componentInputParameter": "none"}}});
            },
            "root.dag.tasks.b.inputs.parameters.q.componentInputParameter",
        ),
        (
            |s| s["root"]["dag"]["tasks"]["b"]["triggerPolicy"] = json!({"condition": "1 =="}),
            "root.dag.tasks.b.triggerPolicy.condition: cannot read \"1 ==\"",
        ),
        (
            |s| s["deploymentSpec"]["executors"]["e"] = json!({"resolver": {}}),
            "deploymentSpec.executors.e: resolver executors are not supported",
        ),
    ];
    assert!(spec().pointer(task).is_some());
    for (change, message) in cases {
        let found = faults(change);
        assert!(
            found.iter().any(|fault| fault.contains(message)),
            "{message}: {found:?}"
        );
    }
}

#[test]
fn numbers_must_not_be_negative() {
    let retry = "root.dag.tasks.b.retryPolicy";
    let resources = "deploymentSpec.executors.e.container.resources";
    for (place, name) in [
        (retry, "maxRetryCount"),
        (retry, "backoffFactor"),
        (resources, "cpuLimit"),
        (resources, "memoryRequest"),
    ] {
        let found = faults(|spec| {
            let path = format!("/{}", place.replace('.', "/"));
            let (parent, last) = path.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[last] = json!({name: -1});
        });
        let message = format!("{place}.{name}: it must not be negative");
        assert!(found.contains(&message), "{message}: {found:?}");
    }
}

#[test]
fn a_component_that_contains_itself_is_refused() {
    let found = faults(|spec| {
        spec["components"]["loop"] =
            json!({"dag": {"tasks": {"x": {"componentRef": {"name": "loop"}}}}});
        spec["root"]["dag"]["tasks"]["x"] = json!({"componentRef": {"name": "loop"}});
    });

    assert!(
        found
            .iter()
            .any(|fault| fault.contains("root → loop → loop")),
        "{found:?}"
    );
}

/// DAGs inside one another, each of which passes its input `x` to the next; `inner` is the task of
/// the innermost.
fn nest(spec: &mut Value, levels: usize, inner: &Value) {
    let given = json!({"parameters": {"x": {"componentInputParameter": "x"}}});
    let declared = json!({"parameters": {"x": {"parameterType": "STRING"}}});
    for level in 0..levels {
        let task = if level + 1 == levels {
            inner.clone()
        } else {
            json!({"componentRef": {"name": format!("d{}", level + 1)}, "inputs": given})
        };
        spec["components"][format!("d{level}")] =
            json!({"inputDefinitions": declared, "dag": {"tasks": {"t": task}}});
    }
    spec["root"]["dag"]["tasks"]["x"] = json!({"componentRef": {"name": "d0"}});
}

#[test]
fn an_input_is_needed_if_anything_inside_uses_it() {
    let passed = json!({"parameters": {"x": {"componentInputParameter": "x"}}});
    let uses = json!({"componentRef": {"name": "e"}, "inputs": passed});
    let declared = json!({"parameters": {"x": {"parameterType": "STRING"}}});
    let inner = json!({"dag": {"tasks": {"t": {"componentRef": {"name": "c"}}}},
        "inputDefinitions": declared});
    let asks = |condition: &str| {
        json!({"componentRef": {"name": "inner"}, "inputs": passed,
            "triggerPolicy": {"condition": condition}})
    };
    for (task, needed) in [
        (uses, true),
        (json!({"componentRef": {"name": "c"}}), false),
        (asks("inputs.parameter_values['x'] == 'a'"), true),
        (asks("inputs.parameter_values.x == 'a'"), true),
        (asks("'xx' == 'a'"), false),
    ] {
        let found = faults(|spec| {
            spec["components"]["e"] = json!({"executorLabel": "e", "inputDefinitions": declared});
            spec["components"]["inner"] = inner.clone();
            nest(spec, 30, &task);
        });
        let is_reported = found
            .iter()
            .any(|fault| fault.starts_with("root.dag.tasks.x"));
        assert_eq!(is_reported, needed, "{task}: {found:?}");
    }
}

#[test]
fn a_chain_of_thousands_of_dags_is_refused_without_delay() {
    let begun = std::time::Instant::now();
    let found = faults(|spec| {
        let passed = json!({"parameters": {"x": {"componentInputParameter": "x"}}});
        let inner = json!({"componentRef": {"name": "c"}, "inputs": passed});
        nest(spec, 4000, &inner);
    });
    let deep = |fault: &String| fault.contains("100 levels deep");
    assert!(found.iter().any(deep), "{found:?}");
    // Once for each level, it takes minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn a_pipeline_that_unfolds_without_end_is_refused() {
    let found = faults(|spec| {
        for level in 0..40 {
            let inner = if level == 39 {
                "c".to_owned()
            } else {
                format!("d{}", level + 1)
            };
            let twice = json!({"x": {"componentRef": {"name": inner}},
                "y": {"componentRef": {"name": inner}}});
            spec["components"][format!("d{level}")] = json!({"dag": {"tasks": twice}});
        }
        spec["root"]["dag"]["tasks"]["x"] = json!({"componentRef": {"name": "d0"}});
    });

    assert!(
        found[0].contains("root.dag: the pipeline unfolds to"),
        "{found:?}"
    );
}

#[test]
fn names_that_lead_out_of_folders_are_refused() {
    for name in ["..", ".", "a/../b", "/a", "a/", "a\\b", "a\0"] {
        let found = faults(|spec| {
            spec["root"]["dag"]["tasks"][name] = json!({"componentRef": {"name": "c"}});
            spec["components"]["c"]["outputDefinitions"]["artifacts"][name] =
                json!({"artifactType": {"schemaTitle": "system.Artifact"}});
        });
        let problems = found
            .iter()
            .filter(|fault| fault.contains("cannot be the name of a file"));
        assert_eq!(problems.count(), 2, "{name}: {found:?}");
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let found = faults(|spec| {
        spec["pipelineInfo"]["name"] = json!("");
        spec["root"]["dag"]["tasks"]["a"]["componentRef"]["name"] = json!("x");
        spec["components"]["c"]["executorLabel"] = json!("y");
    });

    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn a_value_of_another_type_is_refused() {
    let found = faults(|spec| {
        spec["components"]["d"] = json!({"executorLabel": "e",
            "inputDefinitions": {"parameters": {"l": {"parameterType": "LIST"}}}});
        spec["root"]["dag"]["tasks"]["d"] = json!({"componentRef": {"name": "d"},
            "inputs": {"parameters": {"l": {"taskOutputParameter":
                {"producerTask": "a", "outputParameterKey": "n"}}}}});
    });

    assert!(
        found[0].contains("it gets an integer, but component d expects a list"),
        "{found:?}"
    );
}
