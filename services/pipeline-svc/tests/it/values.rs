//! Values are exact and keep their meaning, by every way in and out of a running platform.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use ferroflow_proto::json::map_to_struct;
use ferroflow_proto::kfp::v2beta1 as pb;
use ferroflow_proto::kfp::v2beta1::run_service_client::RunServiceClient;
use ferroflow_testkit::Platform;
use serde_json::{Map, Value, json};
use tonic::transport::Endpoint;

/// How many random values go each way.
const NUMBER_COUNT: usize = 100_000;
/// How many fit into one word of a command.
const ARGUMENT_COUNT: usize = 4_000;
const LIMIT: Duration = Duration::from_mins(2);

/// Doubles of every size, whole ones, and integers up to 2^53.
fn numbers() -> Vec<Value> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut numbers = vec![
        json!(9_007_199_254_740_991_i64),
        json!(9_007_199_254_740_992_i64),
        json!(-9_007_199_254_740_992_i64),
        json!(-0.0),
        json!(5e-324),
        json!(f64::MAX),
    ];
    while numbers.len() < NUMBER_COUNT {
        let bits = random();
        let double = f64::from_bits(bits);
        numbers.push(match bits % 3 {
            0 => json!(i64::try_from(random() >> 11).unwrap() - (1 << 52)),
            1 if double.is_finite() => json!(double),
            _ => json!(f64::from_bits((bits >> 12) | 0x3ff0_0000_0000_0000) - 1.0),
        });
    }
    numbers
}

/// The first number that is another one, bit for bit.
fn difference<'v>(sent: &'v [Value], found: &'v Value) -> Option<(&'v Value, &'v Value)> {
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), sent.len());
    let bits = |value: &Value| value.as_f64().unwrap().to_bits();
    let differs = |(sent, found): &(&Value, &Value)| {
        bits(sent) != bits(found) || sent.is_i64() && !found.is_i64()
    };
    sent.iter().zip(found).find(differs)
}

/// The members of a struct in the order of the numbers.
fn members(of: &Value) -> Value {
    let fields = of.as_object().unwrap();
    (0..fields.len())
        .map(|at| fields[&format!("k{at}")].clone())
        .collect()
}

fn as_struct(numbers: &[Value]) -> Value {
    let named = numbers.iter().enumerate();
    let named = named.map(|(at, number)| (format!("k{at}"), number.clone()));
    Value::Object(named.collect::<Map<_, _>>())
}

fn container(script: &str) -> Value {
    json!({"container": {"image": "i", "command": ["sh", "-ec", script]}})
}

fn typed(types: &[(&str, &str)]) -> Value {
    let types = types.iter();
    let types = types.map(|(name, kind)| ((*name).to_owned(), json!({"parameterType": kind})));
    json!({"parameters": types.collect::<Map<_, _>>()})
}

fn platform() -> (tempfile::TempDir, Platform) {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(&data.path().join("data"), &["--body-max", "67108864"]);
    (data, platform)
}

fn tasks(platform: &Platform, run: &str) -> Vec<Value> {
    let (status, found) = platform.get(&format!("/apis/ferroflow/v1/runs/{run}/tasks"));
    assert_eq!(status, 200, "{found}");
    found["tasks"].as_array().unwrap().clone()
}

fn task(platform: &Platform, run: &str, path: &str) -> Value {
    let found = tasks(platform, run);
    let mut found = found.into_iter();
    found.find(|task| task["path"] == path).unwrap()
}

/// A value of any size; lists of tasks leave out large ones.
fn parameter(platform: &Platform, run: &str, path: &str, name: &str) -> Value {
    let task = task(platform, run, path);
    let task = task["task_id"].as_str().unwrap();
    let path = format!("/apis/ferroflow/v1/runs/{run}/tasks/{task}/parameters/{name}");
    let (status, found) = platform.get(&path);
    assert_eq!(status, 200, "{found}");
    found
}

/// A pipeline whose producer gives what is in files, by parameter files and by its report, and whose
/// consumer writes down what it is told.
fn exchange(folder: &Path, default: &[Value]) -> Value {
    let folder = folder.display();
    let produce = format!(
        "cp {folder}/list.json {{{{$.outputs.parameters['list'].output_file}}}}; \
         cp {folder}/struct.json {{{{$.outputs.parameters['struct'].output_file}}}}; \
         cp {folder}/some.json {{{{$.outputs.parameters['some'].output_file}}}}; \
         cp {folder}/report.json {{{{$.outputs.output_file}}}}"
    );
    let consume = format!("printf '%s' \"$0\" > {folder}/consumed.json");
    let mut consume = container(&consume);
    let word = json!("{{$.inputs.parameters['some']}}");
    consume["container"]["args"] = json!([word]);
    let outputs = [
        ("list", "LIST"),
        ("struct", "STRUCT"),
        ("some", "LIST"),
        ("reported", "LIST"),
    ];
    let mut inputs = typed(&[("list", "LIST"), ("struct", "STRUCT"), ("default", "LIST")]);
    inputs["parameters"]["default"]["defaultValue"] = json!(default);
    json!({
        "pipelineInfo": {"name": "numbers"}, "schemaVersion": "2.1.0",
        "root": {"inputDefinitions": inputs, "dag": {"tasks": {
            "produce": {"componentRef": {"name": "produce"}},
            "consume": {"componentRef": {"name": "consume"}, "dependentTasks": ["produce"],
                "inputs": {"parameters": {"some": {"taskOutputParameter":
                    {"producerTask": "produce", "outputParameterKey": "some"}}}}}}}},
        "components": {
            "produce": {"executorLabel": "produce", "outputDefinitions": typed(&outputs)},
            "consume": {"executorLabel": "consume", "inputDefinitions": typed(&[("some", "LIST")])}},
        "deploymentSpec": {"executors": {"produce": container(&produce), "consume": consume}}
    })
}

#[test]
fn a_hundred_thousand_numbers_arrive_bit_for_bit_by_every_way() {
    let (data, platform) = platform();
    let folder = data.path();
    let numbers = numbers();
    let write = |name: &str, value: &Value| std::fs::write(folder.join(name), value.to_string());
    write("list.json", &json!(numbers)).unwrap();
    write("struct.json", &as_struct(&numbers)).unwrap();
    write("some.json", &json!(numbers[..ARGUMENT_COUNT])).unwrap();
    write(
        "report.json",
        &json!({"parameterValues": {"reported": numbers}}),
    )
    .unwrap();
    let spec = exchange(folder, &numbers);

    let given = json!({"list": numbers, "struct": as_struct(&numbers)});
    let run = platform.submit("numbers", &spec, &given);
    let ended = platform.wait(&run, LIMIT);

    assert_eq!(ended["state"], "SUCCEEDED", "{}", ended["error"]);
    let shown = &ended["runtime_config"]["parameters"];
    let inline = "/pipeline_spec/root/inputDefinitions/parameters/default/defaultValue";
    let input = |name: &str| parameter(&platform, &run, "root", name);
    let output = |name: &str| {
        parameter(
            &platform,
            &run,
            "root.produce",
            &format!("{name}?output=true"),
        )
    };
    let consumed = std::fs::read_to_string(folder.join("consumed.json")).unwrap();
    for (way, found) in [
        ("run parameters", shown["list"].clone()),
        ("run parameters, struct", members(&shown["struct"])),
        ("inline spec", ended.pointer(inline).unwrap().clone()),
        ("inputs", input("list")),
        ("inputs, struct", members(&input("struct"))),
        ("inputs, default of the inline spec", input("default")),
        ("output files", output("list")),
        ("output files, struct", members(&output("struct"))),
        ("the executor's report", output("reported")),
    ] {
        assert_eq!(difference(&numbers, &found), None, "{way}");
    }
    let consumed: Value = serde_json::from_str(&consumed).unwrap();
    assert_eq!(
        difference(&numbers[..ARGUMENT_COUNT], &consumed),
        None,
        "the consumer's command"
    );
}

/// A number as PyYAML writes it.
fn pyyaml_text(number: &Value) -> String {
    let Some(double) = number.as_f64().filter(|_| number.is_f64()) else {
        return number.to_string();
    };
    let text = format!("{double:e}");
    let (digits, exponent) = text.split_once('e').unwrap();
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

#[test]
fn numbers_and_texts_of_yaml_are_what_pyyaml_wrote() {
    let (_data, platform) = platform();
    let numbers = numbers();
    let mut text = "pipelineInfo: {name: yaml}\nschemaVersion: 2.1.0\n".to_owned();
    text.push_str(
        "components:\n  c:\n    executorLabel: e\n    inputDefinitions:\n      parameters:\n",
    );
    text.push_str("        x: {parameterType: LIST}\ndeploymentSpec:\n  executors:\n    e:\n");
    text.push_str(
        "      container: {image: i, command: [echo, '{{$.inputs.parameters[''x'']}}']}\n",
    );
    text.push_str("root:\n  dag:\n    tasks:\n      t:\n        componentRef: {name: c}\n");
    text.push_str(
        "        inputs:\n          parameters:\n            x:\n              runtimeValue:\n",
    );
    text.push_str("                constant: [n, y, 1e3, 1e-5, 0o7, yes, 010, 1.5e+3]\n");
    text.push_str(
        "  inputDefinitions:\n    parameters:\n      many:\n        parameterType: LIST\n",
    );
    text.push_str("        defaultValue:\n");
    for number in &numbers {
        writeln!(text, "        - {}", pyyaml_text(number)).unwrap();
    }

    let (status, made) = platform.upload("yaml", "yaml.yaml", text.as_bytes());

    assert_eq!(status, 200, "{made}");
    let pipeline = made["pipeline_id"].as_str().unwrap();
    let (_, versions) = platform.get(&format!("/apis/v2beta1/pipelines/{pipeline}/versions"));
    let spec = &versions["pipeline_versions"][0]["pipeline_spec"];
    let found = spec.pointer("/root/inputDefinitions/parameters/many/defaultValue");
    assert_eq!(difference(&numbers, found.unwrap()), None);
    let constant = "/root/dag/tasks/t/inputs/parameters/x/runtimeValue/constant";
    let expected = json!(["n", "y", "1e3", "1e-5", "0o7", true, 8, 1500]);
    assert_eq!(spec.pointer(constant), Some(&expected));
}

fn nested(objects: usize) -> Value {
    (0..objects).fold(json!({"leaf": 1}), |inner, _| json!({"x": inner}))
}

/// A pipeline with a value as default, constant, output and metadata.
fn nesting(value: &Value) -> Value {
    let report = json!({"parameterValues": {"out": value},
        "artifacts": {"made": {"artifacts": [{"metadata": {"value": value}}]}}});
    let script = format!("printf '%s' '{report}' > {{{{$.outputs.output_file}}}}");
    let mut inputs = typed(&[("given", "STRUCT"), ("default", "STRUCT")]);
    inputs["parameters"]["default"]["defaultValue"] = value.clone();
    let mut outputs = typed(&[("out", "STRUCT")]);
    outputs["artifacts"] = json!({"made": {"artifactType": {"schemaTitle": "system.Artifact"}}});
    json!({
        "pipelineInfo": {"name": "nesting"}, "schemaVersion": "2.1.0",
        "root": {"inputDefinitions": inputs, "dag": {"tasks": {"t": {"componentRef": {"name": "c"},
            "inputs": {"parameters": {"x": {"runtimeValue": {"constant": value}}}}}}}},
        "components": {"c": {"executorLabel": "e", "inputDefinitions": typed(&[("x", "STRUCT")]),
            "outputDefinitions": outputs}},
        "deploymentSpec": {"executors": {"e": container(&script)}}
    })
}

#[tokio::test]
async fn values_of_thirty_objects_and_more_are_answered_by_every_api() {
    let (_data, platform) = platform();
    for objects in [30, 63] {
        let value = nested(objects);
        let spec = nesting(&value);
        let (status, made) = platform.upload(
            &format!("n{objects}"),
            "p.json",
            spec.to_string().as_bytes(),
        );
        assert_eq!(status, 200, "{made}");
        let pipeline = made["pipeline_id"].as_str().unwrap().to_owned();
        let run = platform.submit("nesting", &spec, &json!({"given": value}));
        let ended = platform.wait(&run, LIMIT);
        assert_eq!(ended["state"], "SUCCEEDED", "{}", ended["error"]);

        assert_eq!(ended["runtime_config"]["parameters"]["given"], value);
        let made = task(&platform, &run, "root.t");
        assert_eq!(made["input_parameters"]["x"], value);
        assert_eq!(made["output_parameters"]["out"], value);
        for path in [
            "/apis/v2beta1/runs".to_owned(),
            "/apis/v2beta1/pipelines".to_owned(),
            format!("/apis/v2beta1/pipelines/{pipeline}/versions"),
        ] {
            let (status, answer) = platform.get(&path);
            assert_eq!(status, 200, "{path}: {answer}");
        }
        let (status, found) = platform.get(&format!("/apis/ferroflow/v1/artifacts?run_id={run}"));
        assert_eq!(status, 200, "{found}");
        assert_eq!(found["artifacts"][0]["metadata"]["value"], value);

        let url = platform.url().to_owned();
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let mut client = RunServiceClient::new(channel);
        let request = pb::GetRunRequest {
            run_id: run,
            ..pb::GetRunRequest::default()
        };
        let mut found = client.get_run(request).await.unwrap().into_inner();
        found.run_id.clear();
        let Some(pb::run::PipelineSource::PipelineSpec(spec)) = &mut found.pipeline_source else {
            panic!("{:?}", found.pipeline_source)
        };
        let Value::Object(deep) = nested(500) else {
            panic!("it is an object")
        };
        *spec = map_to_struct(&deep);
        let request = pb::CreateRunRequest {
            run: Some(found),
            ..pb::CreateRunRequest::default()
        };
        let refused = client.create_run(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("nested deeper"), "{refused}");
    }
}

#[test]
fn deeper_values_are_refused_where_they_come_in() {
    let (_data, platform) = platform();
    let (deep, flat) = (nested(70), nested(1));
    let run = |spec: &Value, given: &Value| {
        let run = json!({"display_name": "deep", "pipeline_spec": spec,
            "runtime_config": {"parameters": {"given": given}}});
        platform.post("/apis/v2beta1/runs", &run)
    };

    for (way, (status, answer), place) in [
        (
            "a run's parameter",
            run(&nesting(&flat), &deep),
            "runtime_config.parameters.given",
        ),
        (
            "an inline spec",
            run(&nesting(&deep), &flat),
            "inputDefinitions.parameters.default",
        ),
        (
            "an upload",
            platform.upload("deep", "p.json", nesting(&deep).to_string().as_bytes()),
            "inputDefinitions.parameters.default",
        ),
        (
            "a body",
            run(&nesting(&flat), &nested(200)),
            "recursion limit",
        ),
    ] {
        assert_eq!(status, 400, "{way}: {answer}");
        let text = answer.to_string();
        assert!(text.contains(place), "{way}: {text}");
    }
    let (_, runs) = platform.get("/apis/v2beta1/runs");
    assert_eq!(runs["total_size"].as_i64().unwrap_or(0), 0, "{runs}");

    // An output comes in when the command has ended.
    let mut spec = nesting(&flat);
    let report = json!({"parameterValues": {"out": deep}});
    let script = format!("printf '%s' '{report}' > {{{{$.outputs.output_file}}}}");
    spec["deploymentSpec"]["executors"]["e"] = container(&script);
    let run = platform.submit("deep", &spec, &json!({"given": flat}));
    let ended = platform.wait(&run, LIMIT);
    assert_eq!(ended["state"], "FAILED");
    let error = ended["error"]["message"].as_str().unwrap();
    assert!(error.contains("output out: it nests 71"), "{error}");
}

#[test]
fn an_output_of_another_type_fails_the_task_that_wrote_it() {
    let (_data, platform) = platform();
    for (kind, written, words) in [
        ("NUMBER_DOUBLE", "NaN", "output x: it is NaN"),
        ("NUMBER_DOUBLE", "-Infinity", "output x: it is -Infinity"),
        ("LIST", "[1, [NaN]]", "output x: it holds NaN"),
        ("STRUCT", "{\"a\": Infinity}", "output x: it holds Infinity"),
        (
            "NUMBER_INTEGER",
            "1.5",
            "output x: it is declared as a whole number",
        ),
        (
            "STRING",
            "7",
            "output x: it is declared as a text, but is 7",
        ),
        (
            "BOOLEAN",
            "\"true\"",
            "output x: it is declared as true or false",
        ),
    ] {
        let report = format!("{{\"parameterValues\": {{\"x\": {written}}}}}");
        let script = format!("printf '%s' '{report}' > {{{{$.outputs.output_file}}}}");
        let spec = json!({
            "pipelineInfo": {"name": "outputs"}, "schemaVersion": "2.1.0",
            "root": {"dag": {"tasks": {
                "wrote": {"componentRef": {"name": "c"}},
                "reads": {"componentRef": {"name": "r"}, "inputs": {"parameters": {"x":
                    {"taskOutputParameter": {"producerTask": "wrote", "outputParameterKey": "x"}}}}}}}},
            "components": {
                "c": {"executorLabel": "e", "outputDefinitions": typed(&[("x", kind)])},
                "r": {"executorLabel": "r", "inputDefinitions": typed(&[("x", kind)])}},
            "deploymentSpec": {"executors": {"e": container(&script), "r": container("true")}}
        });
        let run = platform.submit("outputs", &spec, &json!({}));
        let ended = platform.wait(&run, LIMIT);

        assert_eq!(ended["state"], "FAILED", "{kind} {written}");
        let error = ended["error"]["message"].as_str().unwrap();
        assert!(error.contains("wrote") && error.contains(words), "{error}");
        let reads = task(&platform, &run, "root.reads");
        assert_eq!(reads["state"], "SKIPPED", "{reads}");
    }
}

#[test]
fn tasks_whose_keys_look_like_iterations_are_tasks_of_their_own() {
    let (_data, platform) = platform();
    let plain =
        |upstream: &[&str]| json!({"componentRef": {"name": "c"}, "dependentTasks": upstream});
    let spec = json!({
        "pipelineInfo": {"name": "keys"}, "schemaVersion": "2.1.0",
        "root": {"dag": {"tasks": {
            "for-loop-2": {"componentRef": {"name": "body"}, "parameterIterator":
                {"items": {"raw": "[1, 2]"}, "itemInput": "item"}},
            "for-loop-2.0": plain(&["for-loop-2"]),
            "for-loop-2.0.x": plain(&["for-loop-2.0"])}}},
        "components": {
            "c": {"executorLabel": "e"},
            "body": {"inputDefinitions": typed(&[("item", "STRING")]),
                "dag": {"tasks": {"x": plain(&[])}}}},
        "deploymentSpec": {"executors": {"e": container("true")}}
    });

    let run = platform.submit("keys", &spec, &json!({}));
    let ended = platform.wait(&run, LIMIT);

    assert_eq!(ended["state"], "SUCCEEDED", "{}", ended["error"]);
    let tasks = tasks(&platform, &run);
    assert_eq!(tasks.len(), 8);
    let by_name = |name: &str| tasks.iter().find(|task| task["name"] == name).unwrap();
    let (one, other) = (by_name("for-loop-2.0"), by_name("for-loop-2.0.x"));
    assert_eq!(other["upstream"], json!([one["task_id"]]));
    assert_eq!(one["type"], "CONTAINER");
}

#[test]
fn names_that_would_leave_a_folder_are_refused() {
    let (_data, platform) = platform();
    let spec = |key: &str, output: &str| {
        json!({
            "pipelineInfo": {"name": "names"}, "schemaVersion": "2.1.0",
            "root": {"dag": {"tasks": {key: {"componentRef": {"name": "c"}}}}},
            "components": {"c": {"executorLabel": "e", "outputDefinitions": typed(&[(output, "STRING")])}},
            "deploymentSpec": {"executors": {"e": container("true")}}
        })
    };
    for (spec, place) in [
        (spec("..", "x"), "root.dag.tasks..."),
        (spec("a/../../b", "x"), "root.dag.tasks.a/../../b"),
        (
            spec("t", "../../etc/x"),
            "components.c.outputDefinitions.parameters.../../etc/x",
        ),
        (
            spec("t", "/x"),
            "components.c.outputDefinitions.parameters./x",
        ),
    ] {
        let run = json!({"display_name": "names", "pipeline_spec": spec});
        let (status, answer) = platform.post("/apis/v2beta1/runs", &run);
        assert_eq!(status, 400, "{answer}");
        assert!(answer.to_string().contains(place), "{answer}");
    }
}
