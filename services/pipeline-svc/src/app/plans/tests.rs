//! From files to plans: real pipelines are taken, broken ones are refused without a panic.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::check;
use crate::app::spec_file;

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

/// Compiled pipelines of the ecosystem, where they are at hand.
#[test]
fn real_pipelines_become_plans_and_broken_ones_do_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/kfp");
    let Ok(cases) = std::fs::read_to_string(root.join("cases.tsv")) else {
        println!("skipped: {} is not there", root.display());
        return;
    };
    for line in cases.lines().skip(1) {
        let mut cells = line.split('\t');
        let (path, class) = (cells.next().unwrap(), cells.next().unwrap());
        let bytes = std::fs::read(root.join(path)).unwrap();
        let checked = spec_file::read(path, &bytes).and_then(|file| check(&file));
        match (class, path.starts_with("invalid/")) {
            ("e", true) => assert!(checked.is_err(), "{path} was accepted"),
            _ => assert!(checked.is_ok(), "{path}: {}", checked.unwrap_err()),
        }
    }
}

proptest! {
    /// Cutting any branch off or putting something odd in its place never panics.
    #[test]
    fn no_change_of_a_pipeline_makes_it_panic(at in 0_usize..40, odd in 0_usize..5) {
        fn visit(value: &mut Value, left: &mut usize, odd: &Value) {
            if *left == 0 { *value = odd.clone(); }
            *left = left.wrapping_sub(1);
            match value {
                Value::Object(fields) => fields.values_mut().for_each(|v| visit(v, left, odd)),
                Value::Array(items) => items.iter_mut().for_each(|v| visit(v, left, odd)),
                _ => {}
            }
        }
        let odd = [json!(null), json!({}), json!([]), json!("x"), json!(-1)][odd].clone();
        let mut spec = spec();
        let mut left = at;
        visit(&mut spec, &mut left, &odd);
        let checked = spec_file::from_json(spec).and_then(|file| check(&file));
        let _either = checked.is_ok();
    }
}
