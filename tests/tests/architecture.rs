//! The rules of the house, checked against the code itself.
//!
//! Crates: who may depend on whom. Layers of a service: what a module may name. Sizes. Headers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on panics"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use syn::spanned::Spanned as _;
use syn::visit::Visit;

/// What each crate of ours may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("proto", &["types"]),
    ("service", &["types", "proto"]),
    ("db", &["types"]),
    ("bus", &["types", "db"]),
    ("yaml", &["types"]),
    ("artifacts", &[]),
    ("python-env", &[]),
    ("launcher", &["types", "artifacts", "proto"]),
    (
        "runtime",
        &["types", "artifacts", "launcher", "proto", "python-env"],
    ),
    ("testkit", &["yaml"]),
    ("pipeline-engine", &["types"]),
    (
        "pipeline-svc",
        &[
            "types",
            "proto",
            "service",
            "db",
            "artifacts",
            "launcher",
            "pipeline-engine",
            "runtime",
            "yaml",
        ],
    ),
    ("gateway", &["types", "proto", "service", "db", "bus"]),
];

/// What a layer of a service may not name. The one exception is said where it is.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "domain",
        &[
            "tokio",
            "tonic",
            "prost",
            "sqlx",
            "tracing",
            "prost_types",
            "ferroflow_db",
            "ferroflow_proto",
        ],
    ),
    (
        "store",
        &["tonic", "prost", "ferroflow_proto", "ferroflow_bus"],
    ),
    (
        "app",
        &["tonic", "sqlx", "prost", "prost_types", "ferroflow_bus"],
    ),
    ("api", &["sqlx", "ferroflow_db"]),
    ("workers", &["tonic", "sqlx", "prost", "ferroflow_proto"]),
];

const FILE_MAX: usize = 500;
const FUNCTION_MAX: usize = 70;
const TEST_FUNCTION_MAX: usize = 120;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn sources() -> Vec<PathBuf> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                visit(&path, found);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    visit(&root(), &mut found);
    found
}

fn short(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[test]
fn crates_depend_only_on_what_they_may() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, &[&str]> = CRATES.iter().copied().collect();
    let mut breaches = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        if !manifest.contains("[lints]\nworkspace = true") {
            breaches.push(format!("{name}: lints.workspace is not true"));
        }
        // The binary, the tests and the tasks bring everything together.
        let Some(allowed) = name
            .strip_prefix("ferroflow-")
            .and_then(|name| allowed.get(name))
        else {
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let ours = other.strip_prefix("ferroflow-");
            if let Some(ours) = ours.filter(|_| dependency["kind"].is_null())
                && !allowed.contains(&ours)
            {
                breaches.push(format!("{name} must not depend on {other}"));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

/// The first names of paths and imports in a file, with their lines.
#[derive(Default)]
struct Names(BTreeSet<(usize, String)>);

impl<'a> Visit<'a> for Names {
    fn visit_path(&mut self, path: &'a syn::Path) {
        if let Some(first) = path.segments.first() {
            self.0
                .insert((first.span().start().line, first.ident.to_string()));
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if let syn::UseTree::Path(path) = &item.tree {
            self.0
                .insert((item.span().start().line, path.ident.to_string()));
        }
    }
}

/// Breaches of the layer rules in one file.
fn layer_breaches(path: &str, text: &str) -> Vec<String> {
    let in_layer = |layer: &str| {
        path.contains(&format!("/src/{layer}/")) || path.ends_with(&format!("/src/{layer}.rs"))
    };
    let Some((layer, forbidden)) = LAYERS
        .iter()
        .find(|(layer, _)| path.contains("services/pipeline-svc") && in_layer(layer))
    else {
        return Vec::new();
    };
    let mut names = Names::default();
    names.visit_file(&syn::parse_file(text).unwrap());
    let breaches = names
        .0
        .into_iter()
        .filter(|(_, name)| forbidden.contains(&name.as_str()));
    breaches
        .map(|(line, name)| format!("{path}:{line}: {layer} must not name {name}"))
        .collect()
}

/// Functions that are too long, with their lines.
#[derive(Default)]
struct Lengths {
    long: Vec<String>,
    path: String,
    test: bool,
}

impl Lengths {
    fn check(&mut self, name: &syn::Ident, block: &syn::Block) {
        let (first, last) = (block.span().start().line, block.span().end().line);
        let limit = if self.test {
            TEST_FUNCTION_MAX
        } else {
            FUNCTION_MAX
        };
        if last - first > limit {
            let path = &self.path;
            self.long
                .push(format!("{path}:{first}: {name} has {} lines", last - first));
        }
    }
}

impl<'a> Visit<'a> for Lengths {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.check(&item.sig.ident, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.check(&item.sig.ident, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

/// Breaches of the rules on files and functions.
fn size_breaches(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_MAX {
        breaches.push(format!("{path} has {lines} lines"));
    }
    if path.ends_with("/mod.rs") {
        breaches.push(format!("{path}: a module's file is called like the module"));
    }
    let is_test = path.contains("tests");
    if !text.starts_with("//!") && !is_test {
        breaches.push(format!("{path} has no header"));
    }
    let mut lengths = Lengths {
        path: path.to_owned(),
        test: is_test,
        ..Lengths::default()
    };
    lengths.visit_file(&syn::parse_file(text).unwrap());
    breaches.extend(lengths.long);
    breaches
}

#[test]
fn layers_name_only_what_they_may_and_nothing_is_too_long() {
    let mut breaches = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        breaches.extend(layer_breaches(&short(&path), &text));
        breaches.extend(size_breaches(&short(&path), &text));
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn the_rules_find_a_breach_of_each_kind() {
    let domain = "services/pipeline-svc/src/domain/x.rs";
    let import = "//! x\nuse tokio::sync::mpsc;\n";
    assert_eq!(
        layer_breaches(domain, import),
        ["services/pipeline-svc/src/domain/x.rs:2: domain must not name tokio"]
    );
    let path = "//! x\nfn f() { let _ = sqlx::query(\"\"); }\n";
    assert_eq!(
        layer_breaches("services/pipeline-svc/src/api/x.rs", path).len(),
        1
    );
    assert!(layer_breaches("services/pipeline-svc/src/store/x.rs", path).is_empty());

    assert_eq!(
        size_breaches("src/x.rs", "fn f() {}\n"),
        ["src/x.rs has no header"]
    );
    assert_eq!(size_breaches("src/x/mod.rs", "//! x\n").len(), 1);
    let long = format!("//! x\nfn f() {{\n{}}}\n", "    f();\n".repeat(80));
    assert!(size_breaches("src/x.rs", &long)[0].contains("f has 81 lines"));
    assert_eq!(
        size_breaches("src/x.rs", &format!("//! x\n{}", "\n".repeat(600))).len(),
        1
    );
}
