//! Tests and checks.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::shell::{build, build_for_debugging, build_static, cargo, program, root, run, target};
use crate::{picture, python, real_parts, testbed};

/// CI begins no further tests on real parts after that time.
const START_DEADLINE: Duration = Duration::from_mins(45);

/// With it, a machine on which no real part can be started fails CI.
const REQUIRED: &str = "FERROFLOW_CI_REQUIRES_PARTS";

/// Which tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The tests that need real Kubernetes, Docker, Kafka, PostgreSQL and S3; what is not there is
    /// started.
    #[arg(long)]
    cluster: bool,
    /// What `cargo test --workspace` is given, for some tests only: `-- --test it NAME`. The program
    /// that they run is built for debugging, which is quick.
    #[arg(last = true, conflicts_with = "cluster")]
    arguments: Vec<String>,
}

impl Test {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.cluster {
            return real_parts::test();
        }
        if !self.arguments.is_empty() {
            return cargo_test(&build_for_debugging()?, &self.arguments);
        }
        // The platform that clients and faults are tried on is the one that users run.
        test(&build()?)?;
        println!(
            "not run here: what needs real Kubernetes, Docker, Kafka, PostgreSQL or S3 \
             (cargo xtask test --cluster)"
        );
        Ok(())
    }
}

/// The Python of the stock SDK, which brings PyYAML too: tests of what it writes need that.
fn sdk() -> anyhow::Result<PathBuf> {
    let tests = root().join("tests/kfp_sdk");
    python::environment(&target().join("kfp-env"), &tests.join("requirements.txt"))
}

/// `cargo test --workspace` with these arguments, and with `ferroflow` as the platform.
fn cargo_test(ferroflow: &Path, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<()> {
    run(program(env!("CARGO"), &["test", "--workspace"])
        .args(arguments)
        .env("FERROFLOW_PYTHON", sdk()?)
        .env("FERROFLOW_BIN", ferroflow))
}

/// Everything that runs without root or servers, with `ferroflow` as the platform.
fn test(ferroflow: &Path) -> anyhow::Result<()> {
    println!("$ cargo test --workspace");
    cargo_test(ferroflow, &["--quiet"])?;
    println!("$ pytest tests/kfp_sdk");
    let mut pytest = Command::new(sdk()?);
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
    run(pytest.current_dir(root()).env("FERROFLOW_BIN", ferroflow))
}

/// What CI runs: what needs no servers, checks, then what needs them where they can be had.
pub(crate) fn ci() -> anyhow::Result<()> {
    let end = Instant::now() + START_DEADLINE;
    if let Some(missing) = real_parts::missing_prerequisite() {
        test(&build()?)?;
        checks()?;
        println!("not run: tests on real parts ({missing})");
        return Ok(());
    }
    // Both tiers share what is built: the programs for images, and the tests. Those have no TLS for
    // Kafka, as OpenSSL would be built once more for them; the programs have it.
    let programs = build_static("quick")?;
    test(&programs.join("ferroflow"))?;
    checks()?;
    if Instant::now() > end {
        println!("not run: tests on real parts (there was no time left)");
        return Ok(());
    }
    let started = testbed::missing();
    let tested = match real_parts::up() {
        Ok(given) => real_parts::test_until(&given, Some(end)),
        // A machine of CI may be too narrow for a cluster, which says nothing about this project.
        Err(error) if std::env::var_os(REQUIRED).is_none() => {
            println!("not run: tests on real parts, which cannot be had here: {error:#}");
            println!("({REQUIRED}=1 makes this a failure)");
            Ok(())
        }
        Err(error) => Err(error.context("the parts that tests need cannot be had")),
    };
    let stopped = testbed::down(&started);
    tested.and(stopped)
}

fn checks() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    println!("$ cargo xtask picture --check");
    picture::check()?;
    println!("$ cargo clippy --workspace --all-targets");
    let mut clippy = program(env!("CARGO"), &["clippy", "--quiet", "--workspace"]);
    run(clippy.args(["--all-targets", "--", "-D", "warnings"]))?;
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
