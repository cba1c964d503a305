//! What changes a fingerprint, and what does not.

use serde_json::Map;

use super::*;
use crate::plan::{ParameterInputDecl, ParameterType};
use crate::task_config::{ConfigField, Passthroughs};

fn component(default: &str, args: &[&str]) -> Component {
    let decl = ParameterInputDecl {
        kind: ParameterType::String,
        default: Some(json!(default)),
        optional: true,
        literals: Vec::new(),
    };
    let container = Container {
        image: "busybox".to_owned(),
        command: vec!["sh".to_owned()],
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Container::default()
    };
    Component {
        name: "c".to_owned(),
        parameters: BTreeMap::from([("who".to_owned(), decl)]),
        artifacts: BTreeMap::new(),
        output_parameters: BTreeMap::new(),
        output_artifacts: BTreeMap::new(),
        passthroughs: Passthroughs::default(),
        body: Body::Container(Box::new(container)),
    }
}

fn facts(run: &str, workspace: Option<&str>) -> TaskFacts {
    TaskFacts {
        run_id: run.to_owned(),
        run_name: format!("p-{run}"),
        display_name: "p".to_owned(),
        task_name: "t".to_owned(),
        task_id: format!("{run}-t"),
        pipeline_root: "/r".to_owned(),
        create_time: "1970-01-01T00:00:00Z".to_owned(),
        schedule_time: "1970-01-01T00:00:00Z".to_owned(),
        workspace_path: workspace.map(str::to_owned),
    }
}

fn fingerprint(component: &Component, inputs: &Values, facts: &TaskFacts) -> String {
    let inputs = CacheInputs::of(component, inputs, facts, Map::new);
    compute(&inputs, &ObservedContent::default())
}

fn given(name: &str, value: &str) -> Values {
    Values {
        parameters: BTreeMap::from([(name.to_owned(), json!(value))]),
        artifacts: BTreeMap::new(),
    }
}

#[test]
fn a_key_of_its_own_depends_on_component_and_key_only() {
    assert_eq!(custom("a", "k"), custom("a", "k"));
    assert_ne!(custom("a", "k"), custom("b", "k"));
    assert_ne!(custom("a", "bc"), custom("ab", "c"));
}

#[test]
fn a_changed_default_counts_where_it_is_used() {
    let of = |default, inputs: &Values| {
        let component = component(default, &["{{$.inputs.parameters['who']}}"]);
        fingerprint(&component, inputs, &facts("1", None))
    };
    let none = Values::default();
    assert_eq!(of("a", &none), of("a", &none));
    assert_ne!(of("a", &none), of("b", &none));
    let same = given("who", "x");
    assert_eq!(of("a", &same), of("b", &same));
    // `{"IfPresent": …}` would see a difference.
    assert_ne!(of("x", &none), of("x", &same));
}

#[test]
fn what_a_command_is_told_of_its_run_counts() {
    let of = |arg, run| {
        let component = component("a", &[arg]);
        fingerprint(&component, &Values::default(), &facts(run, None))
    };
    assert_eq!(of("plain", "1"), of("plain", "2"));
    assert_eq!(of("{{$}}", "1"), of("{{$}}", "2"));
    for arg in ["x {{$.pipeline_job_uuid}}", "{{$.pipeline_task_uuid}}"] {
        assert_ne!(of(arg, "1"), of(arg, "2"), "{arg}");
    }
    let named = "{{$.pipeline_job_name}}";
    assert_eq!(of(named, "1"), of(named, "2"));
}

#[test]
fn the_workspace_of_another_run_is_another_one() {
    let of = |arg, run, workspace| {
        let component = component("a", &[arg]);
        fingerprint(&component, &Values::default(), &facts(run, Some(workspace)))
    };
    let on_a_cluster = |arg, run| of(arg, run, "/kfp-workspace");
    assert_eq!(on_a_cluster("plain", "1"), on_a_cluster("plain", "2"));
    let reads = "/kfp-workspace/x";
    assert_ne!(on_a_cluster(reads, "1"), on_a_cluster(reads, "2"));
    assert_eq!(on_a_cluster(reads, "1"), on_a_cluster(reads, "1"));
    let here = "{{$.workspace_path}}/x";
    assert_ne!(of(here, "1", "/w/1"), of(here, "2", "/w/2"));
}

#[test]
fn content_counts_as_it_is_now_and_so_does_the_interpreter() {
    let artifact = |id, digest: Option<&str>| {
        Arc::new(Artifact {
            id,
            name: "data".to_owned(),
            schema_title: "system.Dataset".to_owned(),
            schema_version: "0.0.1".to_owned(),
            uri: "/x".to_owned(),
            metadata: Map::new(),
            digest: digest.map(str::to_owned),
            stamp: None,
            size_bytes: None,
            custom_path: None,
        })
    };
    let of = |id, digest, observed: &ObservedContent| {
        let list = vec![artifact(id, digest)];
        let inputs = Values {
            parameters: BTreeMap::new(),
            artifacts: BTreeMap::from([("data".to_owned(), list)]),
        };
        let component = component("a", &[]);
        let facts = facts("1", None);
        compute(
            &CacheInputs::of(&component, &inputs, &facts, Map::new),
            observed,
        )
    };
    let now = |content: &str| ObservedContent {
        contents: BTreeMap::from([(1, content.to_owned()), (2, content.to_owned())]),
        interpreter: None,
    };
    let nothing_observed = ObservedContent::default();
    assert_ne!(
        of(1, None, &nothing_observed),
        of(2, None, &nothing_observed)
    );
    assert_eq!(
        of(1, Some("d"), &nothing_observed),
        of(2, Some("d"), &nothing_observed)
    );
    assert_eq!(of(1, None, &now("d")), of(2, Some("e"), &now("d")));
    assert_ne!(of(1, Some("d"), &now("d")), of(1, Some("d"), &now("e")));
    let interpreted = ObservedContent {
        interpreter: Some("cpython-311".to_owned()),
        ..now("d")
    };
    assert_ne!(of(1, None, &now("d")), of(1, None, &interpreted));
}

#[test]
fn what_a_task_asks_for_counts_where_its_command_is_told() {
    let asks = |cpu: &str, node: &str, kind: ParameterType, field: ConfigField| {
        let mut component = component("a", &[]);
        component.passthroughs = Passthroughs(BTreeMap::from([(field, true)]));
        let decl = ParameterInputDecl {
            kind,
            default: None,
            optional: true,
            literals: Vec::new(),
        };
        component.parameters.insert("config".to_owned(), decl);
        if let Body::Container(container) = &mut component.body {
            container.resources.cpu_limit = Some(cpu.to_owned());
        }
        let platform = json!({"nodeSelector": {"labels": {"node": node}}});
        let platform = || platform.as_object().unwrap().clone();
        let inputs = given("who", "x");
        let inputs = CacheInputs::of(&component, &inputs, &facts("1", None), platform);
        compute(&inputs, &ObservedContent::default())
    };
    let (task_config, plain_struct) = (ParameterType::TaskConfig, ParameterType::Struct);
    let (resources, node) = (ConfigField::Resources, ConfigField::NodeSelector);

    assert_ne!(
        asks("1", "a", task_config, resources),
        asks("2", "a", task_config, resources)
    );
    assert_eq!(
        asks("1", "a", task_config, resources),
        asks("1", "b", task_config, resources)
    );
    assert_ne!(
        asks("1", "a", task_config, node),
        asks("1", "b", task_config, node)
    );
    assert_eq!(
        asks("1", "a", plain_struct, resources),
        asks("2", "b", plain_struct, resources)
    );
}
