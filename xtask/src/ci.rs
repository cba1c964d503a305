//! Tests and checks.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::python;
use crate::shell::{build, cargo, program, root, run, target};
use crate::testbed::{self, Part};

/// Which tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The tests that need real Kubernetes, Docker, Kafka, PostgreSQL and S3; what is not there is
    /// started.
    #[arg(long)]
    cluster: bool,
}

impl Test {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.cluster { cluster() } else { test() }
    }
}

/// Starts what is not there; the variables by which tests find the parts.
pub(crate) fn cluster_parts() -> anyhow::Result<Vec<(&'static str, String)>> {
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

/// What needs real parts.
fn cluster() -> anyhow::Result<()> {
    let given = cluster_parts()?;
    for arguments in CLUSTER_TESTS {
        println!("$ cargo test {}", arguments.join(" "));
        let mut test = program(env!("CARGO"), &["test", "--quiet"]);
        test.args(*arguments).envs(given.clone());
        run(&mut test)?;
    }
    let tests = root().join("tests/kafka_events");
    let folder = target().join("kafka-env");
    let python = python::environment(&folder, &tests.join("requirements.txt"))?;
    println!("$ pytest tests/kafka_events");
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    run(pytest.arg(tests).current_dir(root()).envs(given))
}

/// Tests that skip themselves without a cluster.
const CLUSTER_TESTS: &[&[&str]] = &[
    &["--package", "ferroflow-pipeline-svc", "store::"],
    &["--package", "ferroflow-db"],
    &[
        "--package",
        "ferroflow-bus",
        "--features",
        "kafka-tls",
        "--",
        "--nocapture",
    ],
    &[
        "--package",
        "ferroflow-runtime",
        "--features",
        "kubernetes,docker",
    ],
    &[
        "--package",
        "ferroflow-launcher",
        "--features",
        "pod",
        "--test",
        "docker_contract",
        "--",
        "--nocapture",
    ],
    &[
        "--package",
        "ferroflow-tests",
        "--test",
        "docker",
        "--",
        "--test-threads",
        "1",
        "--nocapture",
    ],
    &[
        "--package",
        "ferroflow-launcher",
        "--features",
        "pod",
        "--test",
        "kubernetes_contract",
        "--test",
        "warm_pods",
    ],
    &[
        "--package",
        "ferroflow-tests",
        "--test",
        "cluster_conformance",
        "--",
        "--nocapture",
    ],
    &[
        "--package",
        "ferroflow-tests",
        "--test",
        "cluster_chart",
        "--",
        "--nocapture",
    ],
    &[
        "--package",
        "ferroflow-tests",
        "--test",
        "cluster_faults",
        "--",
        "--test-threads",
        "1",
        "--nocapture",
    ],
];

/// Everything that runs without root or servers.
pub(crate) fn test() -> anyhow::Result<()> {
    // The platform that clients and faults are tried on is the one that users run.
    let ferroflow = build()?;
    println!("$ cargo test --workspace");
    run(program(env!("CARGO"), &["test", "--quiet", "--workspace"])
        .env("FERROFLOW_BIN", &ferroflow))?;
    let tests = root().join("tests/kfp_sdk");
    let folder = target().join("kfp-env");
    let python = python::environment(&folder, &tests.join("requirements.txt"))?;
    println!("$ pytest tests/kfp_sdk");
    let mut pytest = Command::new(python);
    pytest.args([
        "-m",
        "pytest",
        "-q",
        "-W",
        "ignore",
        "-p",
        "no:cacheprovider",
        "tests/kfp_sdk",
    ]);
    run(pytest.current_dir(root()).env("FERROFLOW_BIN", &ferroflow))?;
    println!(
        "not run here: what needs real Kubernetes, Docker, Kafka, PostgreSQL or S3 \
         (cargo xtask test --cluster)"
    );
    Ok(())
}

/// What CI runs.
pub(crate) fn ci() -> anyhow::Result<()> {
    test()?;
    checks()
}

fn checks() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    let deny = cargo_deny()?;
    println!("$ cargo deny check bans licenses sources");
    run(program(
        deny,
        &[
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ],
    )
    .env("CARGO", env!("CARGO")))
}

/// cargo-deny, built into a cache outside the checkout when it is not there.
fn cargo_deny() -> anyhow::Result<PathBuf> {
    const VERSION: &str = "0.19.0";
    let home = std::env::home_dir().context("there is no home folder")?;
    let cache = home
        .join(".cache/ferroflow-tools")
        .join(format!("cargo-deny-{VERSION}"));
    let tool = cache.join("bin/cargo-deny");
    if !tool.exists() {
        println!("building cargo-deny {VERSION} into {}", cache.display());
        let mut install = program(
            env!("CARGO"),
            &["install", "--quiet", "--locked", "cargo-deny"],
        );
        install
            .args(["--no-default-features", "--version", VERSION, "--root"])
            .arg(&cache);
        run(&mut install)?;
    }
    Ok(tool)
}
