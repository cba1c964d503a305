//! Running programs, and where things are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The checkout.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// A program in the checkout.
pub(crate) fn program(name: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root());
    command
}

/// Runs a program to its end; its failure is ours.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// Runs a cargo subcommand.
pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    run(&mut program(env!("CARGO"), arguments))
}

/// Builds `ferroflow` as users run it; the program.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    cargo(&[
        "build",
        "--quiet",
        "--profile",
        "quick",
        "--package",
        "ferroflow",
    ])?;
    Ok(root().join("target/quick/ferroflow"))
}

/// Builds the programs for any image: nothing of the machine is linked. The folder that they are in.
pub(crate) fn build_static() -> anyhow::Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    println!("$ cargo build --profile quick --target {TARGET} (static)");
    let mut cargo = program(env!("CARGO"), &["build", "--quiet", "--profile", "quick"]);
    cargo
        .args(["--target", TARGET])
        .args(["--package", "ferroflow", "--package", "ferroflow-launcher"])
        .args(["--features", "ferroflow-launcher/pod"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    run(&mut cargo)?;
    Ok(root().join("target").join(TARGET).join("quick"))
}
