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

fn with_workspace(plan: Arc<Plan>, path: Option<&str>) -> Driven {
    let facts = RunFacts {
        workspace_path: path.map(str::to_owned),
        ..facts()
    };
    Driven::with(plan, facts)
}

#[test]
fn an_importer_brings_content_to_the_workspace_before_its_artifact_is_made() {
    let mut driven = with_workspace(downloads("s3://bucket/data"), Some("/ws"));

    let begun = driven.decide(Event::Start);
    let [Effect::Launch { task, attempt: 1 }] = begun.effects[..] else {
        panic!("{:?}", begun.effects);
    };
    let place = driven.run.place_in_workspace("s3://bucket/data");
    assert_eq!(place.unwrap(), "/ws/.artifacts/s3/bucket/data");
    let task = driven.run.task(task).id;
    driven.decide(Event::SlotGranted { task, attempt: 1 });
    // A server that starts again asks for the same.
    let rows = driven.run.tasks().map(|(ix, _)| driven.run.row(ix));
    let (plan, facts) = (driven.run.plan.clone(), driven.run.facts().clone());
    let restored = RunState::restore(plan, facts, RunPhase::Running, rows.collect());
    let (_, repeated) = restored.unwrap();
    assert!(matches!(repeated[..], [Effect::Launch { attempt: 1, .. }]));
    let brought = driven.decide(Event::AttemptEnded {
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
        let event = driven.answer(effect, &|path, _| good(path));
        driven.drive(event.unwrap(), &|path, _| good(path));
    }
    assert_eq!(driven.end(), RunEnd::Succeeded);
}

#[test]
fn what_cannot_be_brought_to_the_workspace_is_named() {
    for (uri, workspace, said) in [
        ("s3://bucket/data", None, "pipelineConfig.workspace"),
        ("s3://bucket/../../x", Some("/ws"), "it has .. in it"),
        ("gs://bucket/data", Some("/ws"), "use an s3://"),
        (
            "oci://registry/model:1",
            Some("/ws"),
            "leave downloadToWorkspace out",
        ),
    ] {
        let mut driven = with_workspace(downloads(uri), workspace);

        driven.drive(Event::Start, &|path, _| good(path));

        assert_eq!(driven.end(), RunEnd::Failed, "{uri}");
        assert!(driven.run.failure().unwrap().contains(said), "{uri}");
        assert_eq!(driven.launched, [] as [&str; 0]);
    }
}
