//! The tests that need real parts.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::shell::{program, root, run, target};
use crate::testbed::{self, Part};
use crate::{former, python};

/// What these tests need beside the workspace's own features.
pub(crate) const FEATURES: &str = "ferroflow-bus/kafka-tls";

/// Tests of one kind.
struct Group {
    what: &'static str,
    arguments: &'static [&'static str],
    /// Whether CI runs it; all are run by `cargo xtask test --cluster`.
    ci: bool,
}

const fn group(ci: bool, what: &'static str, arguments: &'static [&'static str]) -> Group {
    Group {
        what,
        arguments,
        ci,
    }
}

/// Each skips itself where its part is not there. What breaks parts comes last.
const GROUPS: &[Group] = &[
    group(true, "stores on PostgreSQL", &["--lib", "store::"]),
    group(
        true,
        "the database library on PostgreSQL",
        &["--test", "it"],
    ),
    group(
        true,
        "objects that a real API server takes",
        &["--lib", "kubernetes::"],
    ),
    group(
        true,
        "replicas on PostgreSQL",
        &["--test", "replicas", "--test", "default_experiment"],
    ),
    group(
        true,
        "what the former version left",
        &["--test", "upgrade", "recorded"],
    ),
    group(
        true,
        "the runtime's contract over Docker and Kubernetes, warm pods",
        &[
            "--test",
            "docker_contract",
            "--test",
            "kubernetes_contract",
            "--test",
            "warm_pods",
        ],
    ),
    group(
        true,
        "causes of failures in containers and pods",
        &["--test", "causes"],
    ),
    group(
        true,
        "containers, and restarts of Docker",
        &["--test", "docker"],
    ),
    group(
        true,
        "the chart, replicas in pods, upgrades of what runs",
        &[
            "--test",
            "cluster_chart",
            "--test",
            "cluster_replicas",
            "--test",
            "upgrade",
        ],
    ),
    group(
        false,
        "compiled pipelines of the ecosystem",
        &["--test", "cluster_conformance"],
    ),
    group(false, "Kafka, and restarts of it", &["--test", "kafka"]),
    group(false, "faults of each part", &["--test", "cluster_faults"]),
];

/// Why the test bed cannot be on this machine, if so.
pub(crate) fn obstacle() -> Option<&'static str> {
    let given = Part::ALL
        .iter()
        .all(|part| std::env::var_os(part.variable()).is_some());
    if given {
        return None;
    }
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        return Some("the test bed needs Linux and root");
    }
    let missing = |name: &&str| !testbed::have(name);
    if ["go", "java", "apt-get", "perl"].iter().any(missing) {
        return Some("the test bed needs go, java, apt-get and perl");
    }
    None
}

/// Starts what is not there; the variables by which tests find the parts.
pub(crate) fn up() -> anyhow::Result<Vec<(&'static str, String)>> {
    testbed::up(&Part::ALL)?;
    let programs = testbed::image()?;
    let mut given = vec![
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
    if let Some(former) = former::kept()? {
        given.push(("FERROFLOW_FORMER_BIN", former.display().to_string()));
    }
    let databases = std::env::var_os(Part::Postgres.variable()).is_none();
    if databases {
        given.push(("FERROFLOW_TEST_POD_DATABASE", testbed::database_for_pods()?));
    }
    given.retain(|(name, _)| std::env::var_os(name).is_none());
    let ours = std::env::var_os(Part::Kubernetes.variable()).is_none();
    if ours {
        let us = std::env::current_exe()?.display().to_string();
        given.push(("FERROFLOW_TEST_RESTART", us));
        given.push(("FERROFLOW_TEST_ADDRESS", testbed::address()?));
    }
    for part in Part::ALL {
        if std::env::var_os(part.variable()).is_none() {
            given.push((part.variable(), part.address()?));
            if part == Part::Kafka {
                given.extend(testbed::secure_kafka()?);
            }
        }
    }
    Ok(given)
}

/// Everything that needs real parts.
pub(crate) fn test() -> anyhow::Result<()> {
    // Before this version's own program, which has the same name. CI leaves it out: little of what
    // both versions are made of is built the same way.
    if former::binary()?.is_none() {
        println!("not run: tests of upgrades ({})", former::UNREACHABLE);
    }
    let given = up().context("the parts that tests need cannot be had")?;
    test_until(&given, None)
}

/// The same for CI where there is an `end`: its groups only, and none is begun after that time; what
/// was left out is said.
pub(crate) fn test_until(
    given: &[(&'static str, String)],
    end: Option<Instant>,
) -> anyhow::Result<()> {
    let late = || end.is_some_and(|end| Instant::now() > end);
    let (mut left, mut whole) = (Vec::new(), Vec::new());
    for group in GROUPS {
        if end.is_some() && !group.ci {
            whole.push(group.what);
            continue;
        }
        if late() {
            left.push(group.what);
            continue;
        }
        let arguments = group.arguments.join(" ");
        println!("$ cargo test --workspace {arguments} ({})", group.what);
        let begun = Instant::now();
        // Built as a whole: one package alone would be built once more, with fewer features.
        let mut test = program(env!("CARGO"), &["test", "--quiet", "--workspace"]);
        test.args(["--features", FEATURES]);
        // One at a time: what one test kills, another one may need.
        test.args(group.arguments)
            .args(["--", "--test-threads", "1", "--nocapture"]);
        run(test.envs(given.iter().cloned()))?;
        println!("{}: passed in {}", group.what, minutes(begun.elapsed()));
    }
    if late() {
        left.push("stock clients of Kafka");
    } else {
        stock_kafka_clients(given)?;
    }
    if !left.is_empty() {
        println!("not run, there was no time left: {}", left.join("; "));
    }
    if !whole.is_empty() {
        println!("left to `cargo xtask test --cluster`: {}", whole.join("; "));
    }
    Ok(())
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02} min", time.as_secs() / 60, time.as_secs() % 60)
}

fn stock_kafka_clients(given: &[(&'static str, String)]) -> anyhow::Result<()> {
    let tests = root().join("tests/kafka_events");
    let folder = target().join("kafka-env");
    let python = python::environment(&folder, &tests.join("requirements.txt"))?;
    println!("$ pytest tests/kafka_events");
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    run(pytest
        .arg(tests)
        .current_dir(root())
        .envs(given.iter().cloned()))
}
