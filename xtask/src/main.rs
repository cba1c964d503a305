//! Tasks of the project: `cargo xtask <task>`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for people prints"
)]

mod bench;
mod ci;
mod former;
mod image;
mod picture;
mod python;
mod quickstart;
mod real_parts;
mod shell;
mod test_binaries;
mod testbed;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Tasks of the project")]
enum Task {
    /// Build, start the platform, run examples/digits through the stock kfp SDK.
    Quickstart(quickstart::Quickstart),
    /// Everything that runs without root or servers; with --cluster the rest.
    Test(ci::Test),
    /// What CI runs: test, formatting, clippy, cargo-deny.
    Ci,
    /// Print figures as ratios against a peer in the same run.
    Bench(bench::Bench),
    /// Build the container image of the programs, without a container engine.
    Image(image::Image),
    /// Real Kubernetes, Docker, Kafka, PostgreSQL and S3 on this machine.
    Testbed(testbed::Testbed),
    /// Draw the picture of the packages in ARCHITECTURE.md.
    Picture(picture::Picture),
    /// Build the former version, for tests of upgrades, and print the variable that names it.
    Former,
    /// Build the launcher that `--runtime docker` puts into containers, and say where it is.
    Launcher,
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Quickstart(quickstart) => quickstart.run(),
        Task::Test(test) => test.run(),
        Task::Ci => ci::ci(),
        Task::Bench(bench) => bench.run(),
        Task::Image(image) => image.run(),
        Task::Testbed(testbed) => testbed.run(),
        Task::Picture(picture) => picture.run(),
        Task::Former => former::print(),
        Task::Launcher => shell::print_launcher(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tasks_are_well_formed() {
        Task::command().debug_assert();
    }

    #[test]
    fn a_single_test_is_named_after_two_hyphens() {
        let parse = |more: &[&str]| Task::try_parse_from([&["xtask", "test"], more].concat());

        assert!(parse(&["--", "--test", "it", "cancel::"]).is_ok());
        assert!(parse(&["--cluster"]).is_ok());
        assert!(parse(&["--test", "it"]).is_err());
        let both = parse(&["--cluster", "--", "--test", "it"]).unwrap_err();
        assert_eq!(both.kind(), clap::error::ErrorKind::ArgumentConflict);
    }
}
