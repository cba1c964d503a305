//! The rules of the house, checked against the code itself.
//!
//! | file | holds |
//! |---|---|
//! | `crates` | which packages there are, and who may depend on whom |
//! | `layers` | what a layer of a service may name, and what pure code may not |
//! | `tasks` | tasks that nobody looks after, queues without an end |
//! | `causes` | statuses that would tell callers why something failed inside |
//! | `sizes` | how long files and functions may be, headers |
//! | `budgets` | how much code a service may have, how many tests a package has at least |
//! | `source` | files, the names in them, which of their lines are tests |
//! | `breaches` | each rule, shown a breach of each kind |
//!
//! Rules are functions of text or of what `cargo metadata` says. Exceptions are lists of files, and
//! one that is not needed any more fails.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

mod breaches;
mod budgets;
mod causes;
mod crates;
mod layers;
mod sizes;
mod source;
mod tasks;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use source::{Source, test_files, without};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

#[test]
fn packages_are_listed_and_depend_only_on_what_they_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();

    let mut breaches = crates::breaches(&metadata);
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        breaches.extend(crates::lints_breach(
            package["name"].as_str().unwrap(),
            &manifest,
        ));
    }

    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn files_name_only_what_they_may_and_nothing_is_too_long() {
    let sources = Source::all(&root());
    let tests = test_files(&sources);
    let (mut layers, mut pure) = (Vec::new(), Vec::new());
    let (mut tasks, mut causes) = (Vec::new(), Vec::new());
    let mut breaches = Vec::new();
    for source in &sources {
        layers.extend(layers::layer_breaches(source));
        pure.extend(layers::pure_breaches(source));
        breaches.extend(sizes::breaches(source));
        if source.path.contains("/src/") && !tests.contains(&source.path) {
            tasks.extend(tasks::breaches(source));
            causes.extend(causes::breaches(source));
        }
    }
    breaches.extend(without(&layers, layers::LAYER_EXCEPTIONS));
    breaches.extend(without(&pure, layers::PURE_EXCEPTIONS));
    breaches.extend(without(&tasks, tasks::EXCEPTIONS));
    breaches.extend(without(&causes, causes::EXCEPTIONS));

    let packages = budgets::lines(&sources, &tests);
    for (package, lines) in &packages {
        let (code, share) = (lines.code, lines.share());
        println!("{package}: {code} lines of code, {share} lines of tests to 100 of them");
    }
    breaches.extend(budgets::breaches(
        &packages,
        budgets::FLOORS,
        budgets::LARGER,
    ));

    assert!(breaches.is_empty(), "{breaches:#?}");
}
