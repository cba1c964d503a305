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

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").filter(|given| !given.is_empty());
    root().join(given.map_or_else(|| PathBuf::from("target"), PathBuf::from))
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
    eprintln!("$ cargo {}", arguments.join(" "));
    run(&mut program(env!("CARGO"), arguments))
}

/// Builds `ferroflow` as users run it; the program.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    build_ferroflow(&["--quiet"])
}

/// The same with cargo's own progress.
pub(crate) fn build_with_progress() -> anyhow::Result<PathBuf> {
    build_ferroflow(&[])
}

/// Builds `ferroflow` as developers try it: what tests are built from is not built once more.
pub(crate) fn build_for_debugging() -> anyhow::Result<PathBuf> {
    cargo(&["build", "--quiet", "--workspace", "--bin", "ferroflow"])?;
    Ok(target().join("debug/ferroflow"))
}

fn build_ferroflow(more: &[&str]) -> anyhow::Result<PathBuf> {
    let arguments = ["build", "--profile", "quick", "--package", "ferroflow"];
    cargo(&[&arguments[..], more].concat())?;
    Ok(target().join("quick/ferroflow"))
}

/// Builds the programs for any image: nothing of the machine is linked. The folder that they are in.
pub(crate) fn build_static(profile: &str) -> anyhow::Result<PathBuf> {
    let (packages, features) = (
        ["ferroflow", "ferroflow-launcher"],
        "ferroflow-launcher/pod,ferroflow/kafka-tls",
    );
    build_for_images(profile, &packages, features)
}

/// Builds the launcher for containers.
pub(crate) fn print_launcher() -> anyhow::Result<()> {
    let package = "ferroflow-launcher";
    let folder = build_for_images("quick", &[package], "ferroflow-launcher/pod")?;
    println!("{}", folder.join(package).display());
    println!("put it beside `ferroflow`, or name it: FERROFLOW_DOCKER__LAUNCHER");
    Ok(())
}

fn build_for_images(profile: &str, packages: &[&str], features: &str) -> anyhow::Result<PathBuf> {
    build_static_in(&root(), profile, packages, features)
}

/// Builds programs of any checkout into our target folder; the folder that they are in.
pub(crate) fn build_static_in(
    checkout: &Path,
    profile: &str,
    packages: &[&str],
    features: &str,
) -> anyhow::Result<PathBuf> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    eprintln!("$ cargo build --profile {profile} --target {platform} (static)");
    let mut cargo = program(env!("CARGO"), &["build", "--quiet"]);
    cargo
        .args(["--profile", profile, "--target", &platform])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .args(["--features", features])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_TARGET_DIR", target())
        .current_dir(checkout);
    run(&mut cargo)?;
    Ok(target().join(platform).join(profile))
}
