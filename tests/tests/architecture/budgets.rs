//! How much code a service may have, and how many lines of tests a package has at least.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// Lines of code of a service at most.
pub(crate) const SERVICE_MAX: usize = 8000;

/// Services that have more, and how many they may have.
pub(crate) const LARGER: &[(&str, usize)] = &[];

/// Lines of tests to 100 lines of code that a package of `crates/` or `services/` has at least: what
/// it had when the floor was set, rounded down to fives. Some are tested by
/// `tests/` or by other packages' tests, which count for none of them.
pub(crate) const FLOORS: &[(&str, usize)] = &[
    ("bin/ferroflow", 5),
    ("crates/artifacts", 35),
    ("crates/bus", 55),
    ("crates/db", 60),
    ("crates/launcher", 45),
    ("crates/ownership", 90),
    ("crates/pipeline-engine", 30),
    ("crates/proto", 50),
    ("crates/python-env", 55),
    ("crates/runtime", 15),
    ("crates/schedule", 100),
    ("crates/service", 35),
    ("crates/testkit", 0),
    ("crates/types", 25),
    ("crates/yaml", 45),
    ("services/gateway", 90),
    ("services/pipeline-svc", 50),
];

/// Lines that are neither blank nor comments.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Lines {
    /// In `src`, tests aside.
    pub(crate) code: usize,
    /// Tests in `src` and in the package's `tests`.
    pub(crate) tests: usize,
}

impl Lines {
    /// Lines of tests to 100 lines of code.
    pub(crate) fn share(self) -> usize {
        self.tests * 100 / self.code.max(1)
    }
}

/// The package that a file belongs to, `crates/db` for one, and its path in there.
fn package(path: &str) -> Option<(&str, &str)> {
    let (group, rest) = path.split_once('/')?;
    if !matches!(group, "bin" | "crates" | "services") {
        return None;
    }
    let (name, inner) = rest.split_once('/')?;
    Some((&path[..=group.len() + name.len()], inner))
}

/// The lines of every package; `tests` are the files that only tests have.
pub(crate) fn lines(sources: &[Source], tests: &BTreeSet<String>) -> BTreeMap<String, Lines> {
    let mut packages: BTreeMap<String, Lines> = BTreeMap::new();
    for source in sources {
        let Some((package, inner)) = package(&source.path) else {
            continue;
        };
        if !inner.starts_with("src/") && !inner.starts_with("tests/") {
            continue;
        }
        let whole = tests.contains(&source.path);
        let parts = source.test_lines();
        let lines = packages.entry(package.to_owned()).or_default();
        for (number, line) in (1..).zip(source.text.lines()) {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with("//") {
                continue;
            }
            let part = |(first, last): &(usize, usize)| (*first..=*last).contains(&number);
            if whole || parts.iter().any(part) {
                lines.tests += 1;
            } else {
                lines.code += 1;
            }
        }
    }
    packages
}

/// Packages with too much code or too few tests, and entries of lists that are not needed.
pub(crate) fn breaches(
    packages: &BTreeMap<String, Lines>,
    floors: &[(&str, usize)],
    larger: &[(&str, usize)],
) -> Vec<String> {
    let of = |list: &[(&str, usize)], package: &str| {
        let entry = list.iter().find(|(listed, _)| *listed == package);
        entry.map(|(_, figure)| *figure)
    };
    let mut breaches = Vec::new();
    for (package, lines) in packages {
        let (code, share) = (lines.code, lines.share());
        let max = of(larger, package).unwrap_or(SERVICE_MAX);
        if package.starts_with("services/") && code > max {
            breaches.push(format!("{package} has {code} lines of code, {max} at most"));
        }
        match of(floors, package) {
            None => breaches.push(format!("{package} is not listed among FLOORS")),
            Some(floor) if share < floor => breaches.push(format!(
                "{package} has {share} lines of tests to 100 of code, {floor} at least"
            )),
            Some(_) => {}
        }
    }
    for (listed, _) in floors {
        if !packages.contains_key(*listed) {
            breaches.push(format!("{listed} has a floor, but is not there"));
        }
    }
    for (listed, _) in larger {
        let lines = packages.get(*listed);
        if lines.is_none_or(|lines| lines.code <= SERVICE_MAX) {
            breaches.push(format!(
                "{listed} has a limit of its own; it need not have one"
            ));
        }
    }
    breaches
}
