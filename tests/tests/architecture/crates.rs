//! Which packages there are, and who may depend on whom.

use serde_json::Value;

/// What a package may depend on, of ours.
pub(crate) enum May {
    /// On these.
    On(&'static [&'static str]),
    /// On every one: it brings them together.
    OnAll,
}

use May::{On, OnAll};

/// Every package, without the `ferroflow-` before its name.
pub(crate) const CRATES: &[(&str, May)] = &[
    ("ferroflow", OnAll),
    ("tests", OnAll),
    ("sixth", OnAll),
    ("xtask", OnAll),
    ("types", On(&[])),
    ("proto", On(&["types"])),
    ("service", On(&["types", "proto", "db"])),
    ("db", On(&["types"])),
    ("bus", On(&["types", "db"])),
    ("ownership", On(&["types", "db"])),
    ("yaml", On(&["types"])),
    ("artifacts", On(&["types"])),
    ("python-env", On(&[])),
    ("launcher", On(&["types", "artifacts", "proto"])),
    (
        "runtime",
        On(&["types", "artifacts", "launcher", "proto", "python-env"]),
    ),
    ("testkit", On(&["yaml"])),
    ("pipeline-engine", On(&["types"])),
    ("schedule", On(&["types"])),
    (
        "pipeline-svc",
        On(&[
            "types",
            "proto",
            "service",
            "db",
            "artifacts",
            "launcher",
            "ownership",
            "pipeline-engine",
            "runtime",
            "schedule",
            "yaml",
        ]),
    ),
    ("gateway", On(&["types", "proto", "service", "db", "bus"])),
];

/// Packages that only compute: they wait for nothing and reach nothing.
pub(crate) const PURE: &[&str] = &["types", "yaml", "pipeline-engine", "schedule"];

/// What their Cargo.toml may not name, nor a package that has such a name before a hyphen.
const IMPURE: &[&str] = &["tokio", "sqlx", "tonic", "kube", "reqwest", "hyper", "axum"];

/// The name of a package of ours as it is in [`CRATES`].
fn short(name: &str) -> &str {
    name.strip_prefix("ferroflow-").unwrap_or(name)
}

/// Breaches of what `cargo metadata --no-deps` says.
pub(crate) fn breaches(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let names = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap());
    let names: Vec<_> = names.map(short).collect();
    let mut breaches = Vec::new();
    for (listed, _) in CRATES {
        if !names.contains(listed) {
            breaches.push(format!("{listed} is listed, but there is no such package"));
        }
    }
    for package in packages {
        breaches.extend(dev_breaches(package, &services(packages)));
    }
    for (package, name) in packages.iter().zip(&names) {
        let Some((_, may)) = CRATES.iter().find(|(listed, _)| listed == name) else {
            breaches.push(format!("{name} is not listed among CRATES"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let dependencies = dependencies.filter(|dependency| dependency["kind"] != "dev");
        for dependency in dependencies {
            let other = dependency["name"].as_str().unwrap();
            breaches.extend(dependency_breach(name, may, &names, other));
        }
    }
    breaches
}

/// Packages below `services/`.
fn services(packages: &[Value]) -> Vec<&str> {
    let is_service = |package: &&Value| {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        manifest.contains("/services/")
    };
    let services = packages.iter().filter(is_service);
    services
        .map(|package| package["name"].as_str().unwrap())
        .collect()
}

/// Services that the tests of a crate or service link: they are given the built platform instead.
fn dev_breaches(package: &Value, services: &[&str]) -> Vec<String> {
    let name = package["name"].as_str().unwrap();
    let linked = package["dependencies"].as_array().unwrap().iter();
    let linked = linked.filter(|dependency| dependency["kind"] == "dev");
    let linked = linked.map(|dependency| dependency["name"].as_str().unwrap());
    let all = matches!(
        CRATES.iter().find(|(listed, _)| *listed == short(name)),
        Some((_, OnAll))
    );
    let linked = linked.filter(|other| !all && *other != name && services.contains(other));
    linked
        .map(|other| format!("tests of {} must not link {other}", short(name)))
        .collect()
}

fn dependency_breach(name: &str, may: &May, ours: &[&str], other: &str) -> Option<String> {
    let pure = PURE.contains(&name);
    let is_ours = other.starts_with("ferroflow") && ours.contains(&short(other));
    let allowed = match may {
        OnAll => true,
        On(others) if is_ours => {
            others.contains(&short(other)) && (!pure || PURE.contains(&short(other)))
        }
        On(_) => !pure || !IMPURE.iter().any(|impure| is_or_extends(other, impure)),
    };
    (!allowed).then(|| format!("{name} must not depend on {other}"))
}

fn is_or_extends(name: &str, other: &str) -> bool {
    let rest = name.strip_prefix(other);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Whether the lints of the workspace hold for a package.
pub(crate) fn lints_breach(name: &str, manifest: &str) -> Option<String> {
    let inherited = manifest.contains("[lints]\nworkspace = true");
    (!inherited).then(|| format!("{name}: lints.workspace is not true"))
}
