//! What a layer of a service may not name, and what pure code may not.

use crate::crates::PURE;
use crate::source::{Breach, Name, Source};

/// What a layer of a service may not name: crates, and other layers.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "domain",
        &[
            "tokio",
            "tonic",
            "prost",
            "prost_types",
            "sqlx",
            "kube",
            "reqwest",
            "hyper",
            "axum",
            "tracing",
            "ferroflow_db",
            "ferroflow_bus",
            "ferroflow_ownership",
            "ferroflow_proto",
            "ferroflow_service",
            "ferroflow_runtime",
            "crate::app",
            "crate::store",
            "crate::api",
            "crate::workers",
        ],
    ),
    (
        "store",
        &[
            "tonic",
            "prost",
            "ferroflow_proto",
            "ferroflow_bus",
            "crate::app",
            "crate::api",
            "crate::workers",
        ],
    ),
    (
        "app",
        &[
            "tonic",
            "sqlx",
            "prost",
            "prost_types",
            "ferroflow_bus",
            "crate::api",
            "crate::workers",
        ],
    ),
    (
        "api",
        &["sqlx", "ferroflow_db", "crate::store", "crate::workers"],
    ),
    (
        "workers",
        &["tonic", "sqlx", "prost", "ferroflow_proto", "crate::api"],
    ),
];

/// Files that name what their layer may not.
pub(crate) const LAYER_EXCEPTIONS: &[(&str, &str)] = &[];

/// What pure code may not name at all.
const OUTSIDE: &[&str] = &["std::env", "std::fs", "std::net", "std::process"];

/// Values that are there, but reach nothing.
const VALUES: &[&str] = &[
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
];

/// Clocks, however they are imported.
const CLOCKS: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
];

/// The clock that everybody else is given, and a test of how long something may take.
pub(crate) const PURE_EXCEPTIONS: &[(&str, &str)] = &[
    (
        "crates/types/src/time.rs",
        "pure code must not name Timestamp::now",
    ),
    (
        "crates/pipeline-engine/src/plan/build/tests.rs",
        "pure code must not name Instant::now",
    ),
];

/// The layer of a service that a file is in.
fn layer(path: &str) -> Option<&str> {
    let (_, inner) = path.strip_prefix("services/")?.split_once("/src/")?;
    let first = inner.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

/// Breaches of what a layer may name, in any service.
pub(crate) fn layer_breaches(source: &Source) -> Vec<Breach> {
    let layer = layer(&source.path);
    let Some((layer, forbidden)) = LAYERS.iter().find(|(name, _)| Some(*name) == layer) else {
        return Vec::new();
    };
    let rule = |name: &Name| {
        let forbidden = forbidden.iter().find(|forbidden| name.is_in(forbidden))?;
        Some(format!("{layer} must not name {forbidden}"))
    };
    found(source, rule)
}

/// Breaches of what pure code may name: that of pure packages, and the domain of any service.
pub(crate) fn pure_breaches(source: &Source) -> Vec<Breach> {
    let package = |name: &&str| source.path.starts_with(&format!("crates/{name}/src/"));
    if layer(&source.path) != Some("domain") && !PURE.iter().any(package) {
        return Vec::new();
    }
    found(source, |name| {
        let outside = OUTSIDE.iter().find(|outside| name.is_in(outside));
        let outside = outside.filter(|_| !VALUES.iter().any(|value| name.is_in(value)));
        let clock = CLOCKS.iter().find(|clock| name.ends_with(clock));
        let named = outside.or(clock)?;
        Some(format!("pure code must not name {named}"))
    })
}

/// Names that break a rule.
pub(crate) fn found(source: &Source, rule: impl Fn(&Name) -> Option<String>) -> Vec<Breach> {
    let names = source.names();
    let breaches = names.iter().filter_map(|name| {
        Some(Breach {
            path: source.path.clone(),
            line: name.line,
            rule: rule(name)?,
        })
    });
    let mut breaches: Vec<_> = breaches.collect();
    breaches.dedup();
    breaches
}
