//! Tests and checks.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::python;
use crate::shell::{build, cargo, program, root, run};

/// Everything that runs without root or servers.
pub(crate) fn test() -> anyhow::Result<()> {
    // The platform that clients and faults are tried on is the one that users run.
    let ferroflow = build()?;
    println!("$ cargo test --workspace");
    run(program(env!("CARGO"), &["test", "--quiet", "--workspace"])
        .env("FERROFLOW_BIN", &ferroflow))?;
    let tests = root().join("tests/kfp_sdk");
    let folder = root().join("target/kfp-env");
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
        "not run here: stores on PostgreSQL unless DATABASE_URL is set, and what needs a cluster"
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
