//! Tests of `placeholder`: one line per row of the reference's table.

use ferroflow_types::ValueLimit;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn facts() -> TaskFacts {
    TaskFacts {
        run_id: "run-1".to_owned(),
        run_name: "pipe-abc".to_owned(),
        display_name: "my run".to_owned(),
        task_name: "train".to_owned(),
        task_id: "task-1".to_owned(),
        pipeline_root: "/root".to_owned(),
        create_time: "2026-01-01T00:00:00Z".to_owned(),
        schedule_time: "2026-01-02T00:00:00Z".to_owned(),
        workspace_path: Some("/ws".to_owned()),
    }
}

fn input() -> Value {
    json!({
        "inputs": {
            "parameterValues": {"n": 3, "s": "{{$.pipeline_root}}", "l": [1, "a"]},
            "artifacts": {"ds": {"artifacts": [
                {"name": "17", "uri": "gs://b/ds", "metadata": {"k": "v", "n": 2.0}},
                {"name": "18", "uri": "/x/y", "metadata": {}}
            ]}}
        },
        "outputs": {
            "parameters": {"out": {"outputFile": "/o/out"}},
            "artifacts": {"model": {"artifacts": [{"name": "model", "uri": "/a/model"}]}},
            "outputFile": "/o/output_metadata.json"
        }
    })
}

fn budget() -> Budget {
    Budget::new(ValueLimit::default())
}

fn text(template: &str) -> Result<String, String> {
    let (input, facts) = (input(), facts());
    let context = ExecutorContext {
        executor_input: &input,
        facts: &facts,
        budget: &budget(),
    };
    resolve_text(template, &context).map_err(|error| error.to_string())
}

#[test]
fn every_placeholder_of_a_command() {
    let list = input()["inputs"]["artifacts"]["ds"]["artifacts"].to_string();
    let whole = input().to_string();
    for (template, expected) in [
        ("{{$}}", whole.as_str()),
        ("a {{$.inputs.parameters['n']}} b", "a 3 b"),
        ("{{$.inputs.parameters[\"l\"]}}", "[1,\"a\"]"),
        ("{{$.inputs.parameters['none']}}", ""),
        ("{{$.inputs.artifacts['ds'].path}}", "/gcs/b/ds"),
        ("{{$.inputs.artifacts['ds'].uri}}", "gs://b/ds"),
        ("{{$.inputs.artifacts['ds']}}", list.as_str()),
        ("{{$.inputs.artifacts['ds'].metadata['k']}}", "v"),
        ("{{$.inputs.artifacts['ds'].properties['n']}}", "2"),
        ("{{$.inputs.artifacts['ds'].name}}", "17"),
        ("{{$.outputs.parameters['out'].output_file}}", "/o/out"),
        ("{{$.outputs.artifacts['model'].path}}", "/a/model"),
        ("{{$.outputs.output_file}}", "/o/output_metadata.json"),
        ("{{$.outputMetadataUri}}", "/o/output_metadata.json"),
        (
            "{{$.pipeline_job_name}}/{{$.pipeline_task_name}}",
            "my run/train",
        ),
        ("{{$.pipeline_job_uuid}}", "run-1"),
        ("{{$.pipeline_job_resource_name}}", "pipe-abc"),
        ("{{$.workspace_path}}/x", "/ws/x"),
        (
            "{{$.pipeline_google_cloud_location}}",
            "{{$.pipeline_google_cloud_location}}",
        ),
        ("{{ no }} {{$ unclosed", "{{ no }} {{$ unclosed"),
    ] {
        assert_eq!(text(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn values_are_not_expanded_again() {
    assert_eq!(
        text("{{$.inputs.parameters['s']}}").unwrap(),
        "{{$.pipeline_root}}"
    );
}

#[test]
fn json_is_escaped_as_often_as_asked() {
    let once = text("\"{{$.json_escape[1]}}\"").unwrap();

    let inner: String = serde_json::from_str(&once).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&inner).unwrap(), input());
    assert!(text("{{$.json_escape[99]}}").is_err());
}

#[test]
fn an_output_that_does_not_exist_is_an_error_that_names_it() {
    let error = text("{{$.outputs.artifacts['none'].path}}").unwrap_err();

    assert!(
        error.contains("there is no output artifact none"),
        "{error}"
    );
}

#[test]
fn constants_take_the_other_inputs_with_their_types() {
    let inputs = BTreeMap::from([("pipelinechannel--t-Output".to_owned(), json!("a \"b\"\n"))]);
    let channel = "{{$.inputs.parameters['pipelinechannel--t-Output']}}";

    let resolved = resolve_constant(
        &json!({"x": [format!("<{channel}>"), channel, "{{$.pipeline_task_name}}"]}),
        &facts(),
        &inputs,
        &budget(),
    );
    assert_eq!(
        resolved.unwrap(),
        json!({"x": ["<a \"b\"\n>", "a \"b\"\n", "train"]})
    );

    let number = BTreeMap::from([("n".to_owned(), json!(3))]);
    let n = json!("{{$.inputs.parameters['n']}}");
    let resolved = resolve_constant(&n, &facts(), &number, &budget());
    assert_eq!(resolved.unwrap(), json!(3));
    let missing = resolve_constant(&json!(channel), &facts(), &number, &budget());
    let missing = missing.unwrap_err().to_string();
    assert!(missing.contains("pipelinechannel--t-Output"), "{missing}");
}

#[test]
fn a_short_text_that_would_become_gigabytes_is_refused_before_it_is_put_together() {
    let smallest = ValueLimit::try_from(*ValueLimit::RANGE.start()).unwrap();
    let large = BTreeMap::from([("t".to_owned(), json!("x".repeat(1 << 20)))]);
    let name = "{{$.inputs.parameters['t']}}";
    for constant in [
        json!(name.repeat(1000)),
        json!(vec![name; 1000]),
        json!({ (name.repeat(1000)): 1 }),
    ] {
        let budget = Budget::new(smallest);
        let refused = resolve_constant(&constant, &facts(), &large, &budget).unwrap_err();
        assert!(refused.to_string().contains("value_max"), "{refused}");
    }

    let input = json!({"inputs": {"parameterValues": {"t": "\"".repeat(1 << 20)}}});
    let context = ExecutorContext {
        executor_input: &input,
        facts: &facts(),
        budget: &Budget::new(smallest),
    };
    for text in ["{{$.json_escape[8]}}".to_owned(), "{{$}}".repeat(100)] {
        let refused = resolve_text(&text, &context).unwrap_err();
        assert!(refused.to_string().contains("value_max"), "{refused}");
    }
}

proptest! {
    #[test]
    fn text_without_placeholders_stays_as_it_is(template in "[a-z{} $']{0,40}") {
        prop_assume!(!template.contains("{{$"));
        prop_assert_eq!(text(&template).unwrap(), template);
    }

    #[test]
    fn no_text_makes_it_panic(template in "[{}$.\\[\\]'a-z]{0,60}") {
        let _either = text(&template).is_ok();
    }
}
