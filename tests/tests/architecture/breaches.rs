//! Each rule finds a breach of each kind, and nothing where there is none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::budgets::{self, Lines, SERVICE_MAX};
use crate::crates::{self, CRATES};
use crate::source::{Source, test_files, without};
use crate::{causes, layers, sizes, tasks};

const DOMAIN: &str = "services/x-svc/src/domain/a.rs";

/// What `cargo metadata` says of a workspace that has every listed package; those of `others` have
/// these dependencies, each with its kind.
fn metadata(others: &[(&str, &str, Value)]) -> Value {
    let listed = CRATES.iter().map(|(name, _)| match *name {
        "ferroflow" | "xtask" => (*name).to_owned(),
        name => format!("ferroflow-{name}"),
    });
    let other = others.iter().map(|(name, _, _)| (*name).to_owned());
    let mut names: Vec<String> = listed.chain(other).collect();
    names.sort();
    names.dedup();
    let packages = names.iter().map(|name| {
        let of = others
            .iter()
            .filter(|(of, other, _)| of == name && !other.is_empty());
        let dependencies = of.map(|(_, other, kind)| json!({"name": other, "kind": kind}));
        let folder = match name.as_str() {
            "ferroflow-gateway" | "ferroflow-pipeline-svc" => "services",
            _ => "crates",
        };
        json!({
            "name": name, "dependencies": dependencies.collect::<Vec<_>>(),
            "manifest_path": format!("/w/{folder}/{name}/Cargo.toml"),
        })
    });
    json!({"packages": packages.collect::<Vec<_>>()})
}

/// Breaches of the layers in a file, one a line.
fn layer(path: &str, text: &str) -> Vec<String> {
    let breaches = layers::layer_breaches(&Source::new(path, text));
    breaches.iter().map(ToString::to_string).collect()
}

/// How many breaches of the rules of pure code are in a file.
fn pure(path: &str, text: &str) -> usize {
    layers::pure_breaches(&Source::new(path, text)).len()
}

/// How many tasks and queues in a file are refused.
fn task(text: &str) -> usize {
    tasks::breaches(&Source::new("crates/x/src/a.rs", text)).len()
}

fn size(path: &str, text: &str) -> Vec<String> {
    sizes::breaches(&Source::new(path, text))
}

#[test]
fn a_package_that_is_not_listed_or_is_gone_is_found() {
    assert!(crates::breaches(&metadata(&[])).is_empty());

    let new = metadata(&[("ferroflow-new", "", Value::Null)]);
    assert_eq!(crates::breaches(&new), ["new is not listed among CRATES"]);

    let mut gone = metadata(&[]);
    let packages = gone["packages"].as_array_mut().unwrap();
    packages.retain(|package| package["name"] != "ferroflow-yaml");
    assert_eq!(
        crates::breaches(&gone),
        ["yaml is listed, but there is no such package"]
    );
}

#[test]
fn a_dependency_against_the_arrows_is_found() {
    let found =
        |name: &str, other: &str, kind: Value| crates::breaches(&metadata(&[(name, other, kind)]));
    let null = || Value::Null;

    assert_eq!(
        found("ferroflow-db", "ferroflow-bus", null()),
        ["db must not depend on ferroflow-bus"]
    );
    assert_eq!(found("ferroflow-gateway", "ferroflow", null()).len(), 1);
    assert_eq!(
        found("ferroflow-db", "ferroflow-bus", json!("build")).len(),
        1
    );
    assert!(found("ferroflow-db", "ferroflow-bus", json!("dev")).is_empty());
    assert!(found("ferroflow-bus", "ferroflow-db", null()).is_empty());
    assert!(found("xtask", "ferroflow-gateway", null()).is_empty());

    let dev = |name: &str, other: &str| found(name, other, json!("dev"));
    assert_eq!(
        dev("ferroflow-pipeline-svc", "ferroflow-gateway"),
        ["tests of pipeline-svc must not link ferroflow-gateway"]
    );
    assert_eq!(dev("ferroflow-bus", "ferroflow-pipeline-svc").len(), 1);
    assert!(dev("ferroflow-gateway", "ferroflow-gateway").is_empty());
    assert!(dev("ferroflow-gateway", "ferroflow-testkit").is_empty());
    assert!(dev("ferroflow-tests", "ferroflow-gateway").is_empty());

    for impure in [
        "tokio",
        "tokio-util",
        "sqlx",
        "tonic-prost",
        "kube",
        "reqwest",
        "hyper",
        "axum",
    ] {
        let name = "ferroflow-pipeline-engine";
        assert_eq!(found(name, impure, null()).len(), 1, "{impure}");
        assert!(found(name, impure, json!("dev")).is_empty(), "{impure}");
        assert!(found("ferroflow-db", impure, null()).is_empty(), "{impure}");
    }
    assert!(found("ferroflow-yaml", "regex", null()).is_empty());

    assert_eq!(
        crates::lints_breach("db", "[package]\nname = \"ferroflow-db\"\n"),
        Some("db: lints.workspace is not true".to_owned())
    );
    assert_eq!(
        crates::lints_breach("db", "[lints]\nworkspace = true\n"),
        None
    );
}

#[test]
fn what_a_layer_must_not_name_is_found_in_every_service() {
    assert_eq!(
        layer(DOMAIN, "//! x\nuse tokio::sync::mpsc;\n"),
        [format!("{DOMAIN}:2: domain must not name tokio")]
    );
    for (path, name, found) in [
        ("api/a.rs", "sqlx::query", 1),
        ("api.rs", "crate::store::runs", 1),
        ("api/a.rs", "crate::workers::runs", 1),
        ("store/a.rs", "sqlx::query", 0),
        ("store/a.rs", "crate::app::list", 1),
        ("store/a.rs", "super::super::api::list", 1),
        ("domain/a.rs", "crate::workers::runs", 1),
        ("domain/a.rs", "super::b", 0),
        ("app/a.rs", "crate::api::runs", 1),
        ("app/a.rs", "crate::workers::runs", 1),
        ("app/a.rs", "crate::store::runs", 0),
        ("workers/a.rs", "crate::api::runs", 1),
        ("workers/a.rs", "crate::apiary", 0),
        ("lib.rs", "tonic::service", 0),
    ] {
        for text in [
            format!("use {name};"),
            format!("use {name} as other;"),
            format!("fn f() {{ {name}(1); }}"),
            format!("fn f() {{ g!(a, {name}(1)); }}"),
        ] {
            let path = format!("services/x-svc/src/{path}");
            assert_eq!(layer(&path, &text).len(), found, "{path}: {text}");
        }
    }
    let group = "use crate::{config, store::{runs, tasks}};";
    assert_eq!(layer("services/x-svc/src/api/a.rs", group).len(), 1);
    assert!(layer("crates/x/src/domain/a.rs", "use tokio::sync;").is_empty());
}

#[test]
fn a_clock_and_ways_outside_are_found_in_pure_code() {
    for (text, found) in [
        ("fn f() { std::time::SystemTime::now(); }", 1),
        ("use std::time::Instant; fn f() { Instant::now(); }", 1),
        ("fn f() { assert!(jiff::Timestamp::now() > a); }", 1),
        ("use std::{env, fs};", 2),
        ("use std::process::Command;", 1),
        ("use std::net::{IpAddr, TcpStream};", 1),
        ("use std::time::Duration; fn f(now: Timestamp) {}", 0),
    ] {
        for path in [
            DOMAIN,
            "crates/pipeline-engine/src/a.rs",
            "crates/yaml/src/a.rs",
        ] {
            assert_eq!(pure(path, text), found, "{path}: {text}");
        }
        assert_eq!(pure("crates/db/src/a.rs", text), 0, "{text}");
        assert_eq!(pure("services/x-svc/src/app/a.rs", text), 0, "{text}");
    }
}

#[test]
fn bare_tasks_and_queues_without_an_end_are_found() {
    for text in [
        "fn f() { tokio::spawn(g()); }",
        "use tokio::task; fn f() { task::spawn(g()); }",
        "fn f() { tokio::task::spawn_local(g()); }",
        "fn f() { tokio::sync::mpsc::unbounded_channel::<u8>(); }",
        "use tokio::sync::mpsc; fn f() { mpsc::unbounded_channel::<u8>(); }",
    ] {
        assert_eq!(task(text), 1, "{text}");
        let tests = format!("#[cfg(test)] mod tests {{ {text} }}");
        assert_eq!(task(&tests), 0, "{tests}");
    }
    assert_eq!(
        task("fn f() { tokio::task::spawn_blocking(g); runner.spawn(g()); }"),
        0
    );
    assert_eq!(task("fn f() { mpsc::channel::<u8>(1); }"), 0);
}

#[test]
fn a_status_by_hand_for_what_is_no_fault_of_the_request_is_found() {
    let cause = |path: &str, text: &str| causes::breaches(&Source::new(path, text)).len();
    let api = "services/x-svc/src/api/a.rs";

    for refused in [
        "fn f() { g().map_err(|error| Status::internal(format!(\"cannot: {error}\"))); }",
        "fn f() { g().map_err(tonic::Status::unavailable); }",
        "use tonic::Status; fn f() -> Status { Status::unknown(\"x\") }",
        "fn f() -> Status { h!(Status::data_loss(\"x\")) }",
    ] {
        assert_eq!(cause(api, refused), 1, "{refused}");
        assert_eq!(cause("bin/ferroflow/src/cli.rs", refused), 0, "{refused}");
        let tested = format!("#[cfg(test)] mod tests {{ {refused} }}");
        assert_eq!(cause(api, &tested), 0, "{tested}");
    }
    for allowed in [
        "fn f() -> Status { Status::not_found(\"x\") }",
        "fn f() -> Status { to_status(&Error::internal(\"x\", y)) }",
    ] {
        assert_eq!(cause(api, allowed), 0, "{allowed}");
    }
}

#[test]
fn an_exception_holds_for_its_file_and_rule_and_must_be_needed() {
    let found = layers::layer_breaches(&Source::new(DOMAIN, "//! x\nuse tokio::sync::mpsc;\n"));
    let rule = "domain must not name tokio";

    assert!(without(&found, &[(DOMAIN, rule)]).is_empty());
    assert_eq!(without(&found, &[]), [format!("{DOMAIN}:2: {rule}")]);
    assert_eq!(
        without(&[], &[(DOMAIN, rule)]),
        [format!("{DOMAIN} is excepted from: {rule}; it need not be")]
    );
    assert_eq!(
        without(&found, &[(DOMAIN, "domain must not name sqlx")]).len(),
        2
    );
}

#[test]
fn long_files_and_functions_and_missing_headers_are_found() {
    assert_eq!(size("src/x.rs", "fn f() {}\n"), ["src/x.rs has no header"]);
    assert_eq!(size("src/x/mod.rs", "//! x\n").len(), 1);
    let long = format!("//! x\nfn f() {{\n{}}}\n", "    f();\n".repeat(80));
    assert!(size("src/x.rs", &long)[0].contains("f has 81 lines"));
    let method = format!("//! x\nimpl X {{ fn f() {{\n{}}} }}\n", "f();\n".repeat(80));
    assert_eq!(size("src/x.rs", &method).len(), 1);
    assert!(size("tests/x.rs", &long).is_empty());
    let lines = format!("//! x\n{}", "\n".repeat(600));
    assert_eq!(size("src/x.rs", &lines), ["src/x.rs has 601 lines"]);
}

#[test]
fn lines_of_code_and_of_tests_are_told_apart() {
    let root = "//! x\n#[cfg(test)]\nmod aside;\nfn f() {}\n";
    let inline = "//! x\n\nfn f() {} // one\n/// two\nfn g() {}\n\n\
        #[cfg(test)]\nmod tests {\n    fn t() {}\n}\n";
    let elsewhere = "#[cfg(test)]\n#[path = \"far.rs\"]\nmod near;\n";
    let sources = [
        Source::new("services/x-svc/src/lib.rs", root),
        Source::new("services/x-svc/src/aside.rs", "fn a() {}\nfn b() {}\n"),
        Source::new("services/x-svc/src/aside/deep.rs", "fn a() {}\n"),
        Source::new("services/x-svc/src/far.rs", "fn a() {}\n"),
        Source::new("services/x-svc/src/b.rs", inline),
        Source::new("services/x-svc/src/c.rs", elsewhere),
        Source::new("services/x-svc/tests/it/main.rs", "fn a() {}\n"),
        Source::new("services/x-svc/benches/b.rs", "fn a() {}\n"),
        Source::new("tests/tests/a.rs", "fn a() {}\n"),
    ];
    let tests = test_files(&sources);
    let found = budgets::lines(&sources, &tests);

    let lines = Lines { code: 3, tests: 14 };
    assert_eq!(
        found,
        BTreeMap::from([("services/x-svc".to_owned(), lines)])
    );
    assert_eq!(lines.share(), 466);
}

/// Breaches of the budgets by a package of so many lines.
fn budget(package: &str, code: usize, tests: usize, larger: &[(&str, usize)]) -> Vec<String> {
    let lines = BTreeMap::from([(package.to_owned(), Lines { code, tests })]);
    budgets::breaches(&lines, &[("services/x-svc", 10)], larger)
}

#[test]
fn too_much_code_and_too_few_tests_are_found() {
    let name = "services/x-svc";
    let max = SERVICE_MAX;

    assert!(budget(name, max, max / 10, &[]).is_empty());
    assert_eq!(
        budget(name, max + 1, max, &[]),
        ["services/x-svc has 8001 lines of code, 8000 at most"]
    );
    assert_eq!(
        budget(name, 1000, 99, &[]),
        ["services/x-svc has 9 lines of tests to 100 of code, 10 at least"]
    );
    assert_eq!(
        budget("crates/x", max * 2, 0, &[]),
        [
            "crates/x is not listed among FLOORS",
            "services/x-svc has a floor, but is not there"
        ]
    );
}

#[test]
fn a_larger_service_keeps_to_its_own_limit_while_it_needs_one() {
    let name = "services/x-svc";
    let larger = &[(name, 9000)];

    assert!(budget(name, 9000, 9000, larger).is_empty());
    assert_eq!(
        budget(name, 9001, 9000, larger),
        ["services/x-svc has 9001 lines of code, 9000 at most"]
    );
    assert_eq!(
        budget(name, SERVICE_MAX, SERVICE_MAX, larger),
        ["services/x-svc has a limit of its own; it need not have one"]
    );
}
