//! Importers that bring content to the workspace.

use super::*;

/// An importer that brings `uri` to the workspace.
fn downloads(uri: &str) -> Arc<Plan> {
    let spec = json!({
        "pipelineInfo": {"name": "p"}, "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {"data": {"componentRef": {"name": "import"}}}}},
        "components": {"import": {
            "executorLabel": "import",
            "outputDefinitions": {"artifacts": {"artifact": {"artifactType":
                {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}}}}
        }},
        "deploymentSpec": {"executors": {"import": {"importer": {
            "artifactUri": {"constant": uri}, "downloadToWorkspace": true,
            "typeSchema": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}
        }}}}
    });
    let spec: ir::PipelineSpec = serde_json::from_value(spec).unwrap();
    Arc::new(build(&spec, None).unwrap())
}

fn with_workspace(plan: Arc<Plan>, path: Option<&str>) -> TestRun {
    let facts = RunFacts {
        workspace_path: path.map(str::to_owned),
        ..facts()
    };
    TestRun::with(plan, facts)
}

#[test]
fn an_importer_brings_content_to_the_workspace_before_its_artifact_is_made() {
    let mut test_run = with_workspace(downloads("s3://bucket/data"), Some("/ws"));

    let begun = test_run.decide(Event::Start);
    let [Effect::Launch { task, attempt: 1 }] = begun.effects[..] else {
        panic!("{:?}", begun.effects);
    };
    let place = test_run.run.workspace_copy_path("s3://bucket/data");
    assert_eq!(place.unwrap(), "/ws/.artifacts/s3/bucket/data");
    let task = test_run.run.task(task).id;
    test_run.decide(Event::SlotGranted { task, attempt: 1 });
    // A server that starts again asks for the same.
    let rows = test_run.run.tasks().map(|(ix, _)| test_run.run.row(ix));
    let (plan, facts) = (test_run.run.plan.clone(), test_run.run.facts().clone());
    let restored = RunState::restore(plan, facts, RunPhase::Running, rows.collect());
    let (_, repeated) = restored.unwrap();
    assert!(matches!(repeated[..], [Effect::Launch { attempt: 1, .. }]));
    let brought = test_run.decide(Event::AttemptEnded {
        task,
        attempt: 1,
        result: good("data"),
    });
    assert!(
        matches!(&brought.effects[..], [Effect::Import { uri, .. }] if uri == "s3://bucket/data"),
        "{:?}",
        brought.effects
    );
    for effect in brought.effects {
        let event = test_run.answer(effect, &|path, _| good(path));
        test_run.drive(event.unwrap(), &|path, _| good(path));
    }
    assert_eq!(test_run.end(), RunEnd::Succeeded);
}

#[test]
fn what_cannot_be_brought_to_the_workspace_is_named() {
    for (uri, workspace, expected) in [
        ("s3://bucket/data", None, "pipelineConfig.workspace"),
        ("s3://bucket/../../x", Some("/ws"), "it has .. in it"),
        ("gs://bucket/data", Some("/ws"), "use an s3://"),
        (
            "oci://registry/model:1",
            Some("/ws"),
            "leave downloadToWorkspace out",
        ),
    ] {
        let mut test_run = with_workspace(downloads(uri), workspace);

        test_run.drive(Event::Start, &|path, _| good(path));

        assert_eq!(test_run.end(), RunEnd::Failed, "{uri}");
        assert!(test_run.run.failure().unwrap().contains(expected), "{uri}");
        assert_eq!(test_run.launched, [] as [&str; 0]);
    }
}
