//! The tests that need real parts.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::shell::{root, run, target};
use crate::test_binaries::{Selection, TestBinaries, tests_of, unit_tests};
use crate::testbed::{self, Part};
use crate::{former, python};

/// What tests of Kafka's secure listeners need beside the workspace's own features. It builds OpenSSL,
/// which takes minutes.
const FEATURES: [&str; 2] = ["--features", "ferroflow-bus/kafka-tls"];

/// Tests of one kind.
struct Group {
    what: &'static str,
    tests: &'static [Selection],
    /// Whether CI runs it; all are run by `cargo xtask test --cluster`.
    ci: bool,
    /// Whether its tests run at once: they share a server, but break nothing.
    parallel: bool,
}

const fn group(ci: bool, what: &'static str, tests: &'static [Selection]) -> Group {
    Group {
        what,
        tests,
        ci,
        parallel: false,
    }
}

const PIPELINES: &str = "services/pipeline-svc";

/// What needs nothing but a database is required to find one; other tests skip themselves where
/// their part is not there. What breaks parts comes last.
const GROUPS: &[Group] = &[
    Group {
        parallel: true,
        ..group(
            true,
            "stores on PostgreSQL",
            &[
                unit_tests(&["store::"]),
                tests_of(PIPELINES, "lib", &["app::step::"]),
                tests_of("crates/db", "it", &[]),
                tests_of("crates/ownership", "lib", &[]),
                tests_of("crates/bus", "it", &["--skip", "kafka::"]),
                tests_of("tests/sixth", "it", &[]),
            ],
        )
    },
    group(
        true,
        "objects that a real API server takes",
        &[unit_tests(&["kubernetes::"])],
    ),
    group(
        true,
        "replicas on PostgreSQL",
        &[tests_of(
            PIPELINES,
            "it",
            &["replicas::", "default_experiment::"],
        )],
    ),
    group(
        true,
        "what the former version left",
        &[tests_of("tests", "it", &["upgrade::a_recorded"])],
    ),
    group(
        true,
        "the runtime's contract over Docker and Kubernetes, warm pods",
        &[
            tests_of("crates/launcher", "docker_contract", &[]),
            tests_of("crates/launcher", "kubernetes_contract", &[]),
            tests_of("crates/launcher", "warm_pods", &[]),
        ],
    ),
    group(
        true,
        "causes of failures in containers and pods",
        &[tests_of(PIPELINES, "it", &["causes::"])],
    ),
    group(
        true,
        "containers, and restarts of Docker",
        &[tests_of("tests", "cluster", &["docker::"])],
    ),
    group(
        true,
        "the chart, replicas in pods, upgrades of what runs",
        &[
            tests_of("tests", "cluster", &["chart::", "replicas::"]),
            tests_of("tests", "it", &["upgrade::"]),
        ],
    ),
    group(
        false,
        "compiled pipelines of the ecosystem",
        &[tests_of("tests", "cluster", &["conformance::"])],
    ),
    group(
        false,
        "Kafka, and restarts of it",
        &[tests_of("crates/bus", "it", &["kafka::"])],
    ),
    group(
        false,
        "faults of each part",
        &[tests_of("tests", "cluster", &["faults::"])],
    ),
];

/// Why the test bed cannot be on this machine, if so.
pub(crate) fn missing_prerequisite() -> Option<&'static str> {
    let given = Part::ALL
        .iter()
        .all(|part| std::env::var_os(part.variable()).is_some());
    if given {
        return None;
    }
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        return Some("the test bed needs Linux and root");
    }
    let missing = |name: &&str| !testbed::is_installed(name);
    if ["go", "java", "apt-get", "perl"].iter().any(missing) {
        return Some("the test bed needs go, java, apt-get and perl");
    }
    None
}

/// The variables that name programs of this checkout.
const PROGRAMS: [&str; 2] = ["FERROFLOW_BIN", "FERROFLOW_TEST_LAUNCHER"];

/// Starts what is not there; the variables by which tests find the parts.
pub(crate) fn up() -> anyhow::Result<Vec<(&'static str, String)>> {
    testbed::up(&Part::ALL)?;
    let programs = testbed::image()?;
    let mut variables = vec![
        (
            "FERROFLOW_BIN",
            programs.join("ferroflow").display().to_string(),
        ),
        (
            "FERROFLOW_TEST_LAUNCHER",
            programs.join("ferroflow-launcher").display().to_string(),
        ),
        ("FERROFLOW_TEST_IMAGE", testbed::FERROFLOW.to_owned()),
        ("FERROFLOW_TEST_TASK_IMAGE", testbed::PYTHON.to_owned()),
        (
            "FERROFLOW_TEST_HELM",
            testbed::helm()?.display().to_string(),
        ),
    ];
    if let Some(former) = former::cached()? {
        variables.push(("FERROFLOW_FORMER_BIN", former.display().to_string()));
    }
    let databases = std::env::var_os(Part::Postgres.variable()).is_none();
    if databases {
        variables.push(("FERROFLOW_TEST_POD_DATABASE", testbed::database_for_pods()?));
    }
    // Programs were built just now; one of the environment may be older.
    variables.retain(|(name, _)| PROGRAMS.contains(name) || std::env::var_os(name).is_none());
    let ours = std::env::var_os(Part::Kubernetes.variable()).is_none();
    if ours {
        let us = std::env::current_exe()?.display().to_string();
        variables.push(("FERROFLOW_TEST_RESTART", us));
        variables.push(("FERROFLOW_TEST_ADDRESS", testbed::address()?));
    }
    for part in Part::ALL {
        if std::env::var_os(part.variable()).is_none() {
            variables.push((part.variable(), part.address()?));
            if part == Part::Kafka {
                variables.extend(testbed::secure_kafka()?);
            }
        }
    }
    Ok(variables)
}

/// Everything that needs real parts.
pub(crate) fn test() -> anyhow::Result<()> {
    // Before this version's own program, which has the same name. CI leaves it out: little of what
    // both versions are made of is built the same way.
    if former::binary()?.is_none() {
        println!("not run: tests of upgrades ({})", former::UNREACHABLE);
    }
    let variables = up().context("the parts that tests need cannot be had")?;
    test_until(&variables, None)
}

/// The same for CI where there is an `end`: its groups only, without TLS of Kafka, and none is begun
/// after that time; what was left out is said.
pub(crate) fn test_until(
    variables: &[(&'static str, String)],
    end: Option<Instant>,
) -> anyhow::Result<()> {
    let is_late = || end.is_some_and(|end| Instant::now() > end);
    let (mut not_run, mut cluster_only) = (Vec::new(), Vec::new());
    let features: &[&str] = if end.is_some() { &[] } else { &FEATURES };
    let binaries = TestBinaries::build(features)?;
    let mut variables = variables.to_vec();
    variables.push(("FERROFLOW_TEST_REQUIRE", "postgres".to_owned()));
    for group in GROUPS {
        if end.is_some() && !group.ci {
            cluster_only.push(group.what);
            continue;
        }
        if is_late() {
            not_run.push(group.what);
            continue;
        }
        println!("tests on real parts: {}", group.what);
        let begun = Instant::now();
        // One at a time: what one test kills, another one may need.
        let serial_flags = ["--nocapture", "--test-threads", "1"];
        let flags = if group.parallel {
            &serial_flags[..1]
        } else {
            &serial_flags[..]
        };
        let tested = binaries.run(group.tests, flags, &variables);
        tested.with_context(|| format!("tests on real parts: {}", group.what))?;
        println!("{}: passed in {}", group.what, minutes(begun.elapsed()));
    }
    if is_late() {
        not_run.push("stock clients of Kafka");
    } else {
        stock_kafka_clients(&variables)?;
    }
    if !not_run.is_empty() {
        println!("not run, there was no time left: {}", not_run.join("; "));
    }
    if !cluster_only.is_empty() {
        println!(
            "left to `cargo xtask test --cluster`: {}; TLS of Kafka",
            cluster_only.join("; ")
        );
    }
    Ok(())
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02} min", time.as_secs() / 60, time.as_secs() % 60)
}

fn stock_kafka_clients(variables: &[(&'static str, String)]) -> anyhow::Result<()> {
    let tests = root().join("tests/kafka_events");
    let folder = target().join("kafka-env");
    let python = python::environment(&folder, &tests.join("requirements.txt"))?;
    println!("$ pytest tests/kafka_events");
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    run(pytest
        .arg(tests)
        .current_dir(root())
        .envs(variables.iter().cloned()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What tests name that use real parts.
    const USES: [&str; 7] = [
        "DATABASE_URL",
        "each_db",
        "databases()",
        "FERROFLOW_TEST_KAFKA",
        "KUBECONFIG",
        "testkit::cluster",
        "testkit::docker",
    ];

    /// Files below a folder that only tests have and that use real parts.
    fn using_parts(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                using_parts(&path, found);
                continue;
            }
            let short = path.strip_prefix(root()).unwrap().display().to_string();
            let is_test = short.contains("/tests/") || short.ends_with("/tests.rs");
            if !is_test || path.extension().is_none_or(|end| end != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            if USES.iter().any(|part| text.contains(part)) {
                found.push(short);
            }
        }
    }

    #[test]
    fn every_test_that_uses_real_parts_is_in_a_group() {
        let mut found = Vec::new();
        for folder in ["bin", "crates", "services", "tests"] {
            using_parts(&root().join(folder), &mut found);
        }
        assert!(found.len() > 20, "{found:#?}");
        let groups = || GROUPS.iter().flat_map(|group| group.tests);
        let left: Vec<_> = found
            .iter()
            .filter(|file| !groups().any(|selection| selection.covers(file)))
            .collect();
        assert!(
            left.is_empty(),
            "run on no real part by any group: {left:#?}"
        );
    }

    #[test]
    fn ci_runs_every_store_on_postgresql() {
        let group = GROUPS.iter().find(|group| group.ci && group.parallel);
        let stores = group.unwrap().tests;
        for file in [
            "services/pipeline-svc/src/store/tests.rs",
            "services/next-svc/src/store/tests/things.rs",
            "crates/db/tests/it/leases.rs",
            "crates/ownership/src/tests/claims.rs",
            "crates/bus/tests/it/services.rs",
        ] {
            let covered = stores.iter().any(|selection| selection.covers(file));
            assert!(covered, "{file}");
        }
    }
}
