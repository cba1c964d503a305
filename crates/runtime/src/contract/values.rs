//! Values larger than the kernel passes on in an argument or a variable.

use std::collections::BTreeMap;

use ferroflow_launcher::kfp::{OutputParameter, ParameterKind};
use ferroflow_launcher::{AttemptSpec, FailureReason};
use ferroflow_types::ValueLimit;
use serde_json::{Value, json};

use super::{Subject, failure, kfp_of, outcome, outputs};
use crate::Runtime;

const MIB: usize = 1024 * 1024;

/// Every promise about them.
pub(super) async fn all(subject: &Subject) {
    python_components_get_them_in_files(subject).await;
    other_commands_fail_with_the_value_that_is_too_large(subject).await;
    outputs_are_as_large_as_a_value_may_be(subject).await;
}

/// What an executor of the SDK does with its arguments, for machines and images without the SDK.
const EXECUTOR: &str = "\
import json, os, sys
args = sys.argv[1:]
given = dict(zip(args[::2], args[1::2]))
assert os.path.basename(given['--component_module_path']) == 'ephemeral_component.py'
assert given['--function_to_execute'] == 'f' and os.environ['_KFP_RUNTIME'] == 'true'
assert __name__ == '__main__' and sys.path[0] == os.getcwd()
source = open(given['--component_module_path']).read()
values = json.loads(given['--executor_input'])['inputs']['parameterValues']
with open(os.environ['SUM'], 'w') as file:
    file.write(str(len(source) + len(values['text'])))
";

/// The script of a component of the SDK (`component_factory.py`).
const RUN: &str = "program_path=$(mktemp -d)\n\n\
    printf \"%s\" \"$0\" > \"$program_path/ephemeral_component.py\"\n\
    _KFP_RUNTIME=true python3 -m kfp.dsl.executor_main                         \
    --component_module_path                         \
    \"$program_path/ephemeral_component.py\"                         \"$@\"\n";

fn component(subject: &Subject, runtime: &dyn Runtime, name: &str, text: &str) -> AttemptSpec {
    let mut spec = Subject::with_sum(runtime, subject.spec(runtime, name, ""));
    let source = "#".repeat(200_000);
    let input = json!({"inputs": {"parameterValues": {"text": text}}}).to_string();
    let command = ["sh", "-c", "\"$0\" \"$@\"", "sh", "-ec", RUN, &source];
    let rest = ["--executor_input", &input, "--function_to_execute", "f"];
    spec.argv = command.into_iter().chain(rest).map(str::to_owned).collect();
    let path = subject.inside.join("fake").display().to_string();
    spec.env.push(("PYTHONPATH".to_owned(), path));
    spec
}

async fn python_components_get_them_in_files(subject: &Subject) {
    let fake = subject.folder.join("fake/kfp/dsl");
    std::fs::create_dir_all(&fake).unwrap();
    std::fs::write(fake.join("executor_main.py"), EXECUTOR).unwrap();
    std::fs::write(fake.join("__init__.py"), "").unwrap();
    std::fs::write(fake.with_file_name("__init__.py"), "").unwrap();
    let runtime = (subject.reopen)();
    // One argument that is too large, and as many as do not fit together.
    for (name, size) in [("source in a file", 10), ("all in files", 8 * MIB)] {
        let text = "ä".repeat(size / 2);
        let spec = component(subject, &*runtime, name, &text);

        let found = outputs(outcome(&*runtime, spec).await);

        assert_eq!(found.parameters["sum"], 200_000 + size / 2, "{name}");
    }
}

async fn other_commands_fail_with_the_value_that_is_too_large(subject: &Subject) {
    let runtime = (subject.reopen)();
    let text = "x".repeat(200_000);
    let with_text = |name: &str| {
        let mut spec = subject.spec(&*runtime, name, "echo \"$0\"");
        let outputs_dir = runtime.layout(&spec.key).outputs_dir;
        let kfp = kfp_of(&mut spec, &outputs_dir);
        kfp.arguments.insert("text".to_owned(), text.clone().into());
        spec
    };
    let mut arg = with_text("large word");
    arg.argv.push(format!("text: {text}"));
    let mut variable = with_text("large variable");
    variable.env.push(("TEXT".to_owned(), text.clone()));
    for (spec, what) in [(arg, "word 3"), (variable, "environment variable TEXT")] {
        let found = failure(outcome(&*runtime, spec).await);

        assert_eq!(found.reason, FailureReason::StartFailed);
        for named in [what, "input parameter text of 200000 bytes", "131072"] {
            assert!(found.message.contains(named), "{}", found.message);
        }
    }
    // As large as they may be, and more of them than the object of a pod has room for.
    let names = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L"];
    let sizes = names.map(|name| format!("${{#{name}}}")).join("+");
    let script = format!("printf %s $(({sizes})) > \"$SUM\"");
    let spec = subject.spec(&*runtime, "variables", &script);
    let mut spec = Subject::with_sum(&*runtime, spec);
    let value = "x".repeat(130_000);
    spec.env
        .extend(names.map(|name| (name.to_owned(), value.clone())));
    let found = outputs(outcome(&*runtime, spec).await);
    assert_eq!(found.parameters["sum"], 12 * 130_000);
}

async fn outputs_are_as_large_as_a_value_may_be(subject: &Subject) {
    let runtime = (subject.reopen)();
    let limit = ValueLimit::default().value();
    let given = |name: &str, size: u64| {
        let script = format!("head -c {size} /dev/zero | tr '\\0' x > \"$TEXT\"");
        let mut spec = subject.spec(&*runtime, name, &script);
        let outputs_dir = runtime.layout(&spec.key).outputs_dir;
        let path = outputs_dir.join("text");
        spec.env
            .push(("TEXT".to_owned(), path.display().to_string()));
        let kfp = kfp_of(&mut spec, &outputs_dir);
        kfp.outputs.parameters.push(OutputParameter {
            name: "text".to_owned(),
            kind: ParameterKind::String,
            path,
        });
        spec
    };

    let found = outputs(outcome(&*runtime, given("large output", limit)).await);
    let parameters: BTreeMap<String, Value> = found.parameters;
    let text = parameters["text"].as_str().unwrap();
    assert!(text.len() as u64 == limit && text.bytes().all(|byte| byte == b'x'));

    let found = failure(outcome(&*runtime, given("too large output", limit + 1)).await);
    assert_eq!(found.reason, FailureReason::Output);
    for named in ["output text", "16777217 bytes", "value_max"] {
        assert!(found.message.contains(named), "{}", found.message);
    }
}
