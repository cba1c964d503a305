//! PyYAML writes random texts and structures, and they are read back as they were.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics, and says what it skips"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A Python with PyYAML. Where one is named it must have it.
fn python() -> Option<String> {
    let named = std::env::var("FERROFLOW_PYTHON").ok();
    let python = named.clone().unwrap_or_else(|| "python3".to_owned());
    let import = Command::new(&python).args(["-c", "import yaml"]).output();
    if import.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    assert!(named.is_none(), "{python} has no PyYAML");
    None
}

/// Equal bit for bit; `==` takes the zeros for one another.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            a.is_f64() == b.is_f64() && a.to_string() == b.to_string()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|((name, a), (other, b))| name == other && same(a, b))
        }
        _ => one == other,
    }
}

fn scalars(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(scalars).sum(),
        Value::Object(fields) => fields.len() + fields.values().map(scalars).sum::<usize>(),
        _ => 1,
    }
}

#[test]
fn what_pyyaml_writes_is_read_back_as_it_was() {
    let Some(python) = python() else {
        return println!("skipped: there is no python3 with PyYAML (FERROFLOW_PYTHON names one)");
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dump.py");
    let output = Command::new(python)
        .arg(script)
        .args(["20261127", "4000"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (mut documents, mut values) = (0, 0);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let expected = case["value"].take();
        let text = case["yaml"].as_str().unwrap();
        let found =
            ferroflow_yaml::documents(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        assert!(
            found.len() == 1 && same(&found[0], &expected),
            "{text}\n{found:?}\n{expected}"
        );
        documents += 1;
        values += scalars(&expected);
    }
    println!("{documents} documents, {values} keys and values");
    assert!(values > 100_000, "{values} values are too few");
}
