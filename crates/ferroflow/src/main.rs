//! `ferroflow`: the whole platform in one process or in several, and its command line.

mod cli;
mod config;
mod docker;
mod flags;
mod folder;
mod relays;
mod retention;
mod serve;
mod up;
mod wiring;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};

/// The argument that makes this program a launcher; see `ferroflow_launcher`.
const LAUNCH: &str = "__launch";

/// Pipelines from end to end on one machine.
#[derive(Debug, Parser)]
#[command(name = "ferroflow", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start the platform and serve until interrupted.
    Up(Box<flags::Flags>),
    /// Start one service as a process of its own, as clusters do.
    Serve {
        #[command(subcommand)]
        service: serve::Service,
    },
    #[command(flatten)]
    Client(Box<cli::ClientCommand>),
}

/// The usage in errors is that of `--help`. Without this, clap lists what was given there as if it were
/// required, variables of the environment included.
fn with_fixed_usage(mut command: clap::Command) -> clap::Command {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    command
        .override_usage(usage)
        .mut_subcommands(with_fixed_usage)
}

fn main() -> ExitCode {
    // Launchers are started for every step: no runtime, no parser, straight to work.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == LAUNCH) {
        return ferroflow_launcher::main(&arguments.collect::<Vec<_>>());
    }
    let mut command = Arguments::command();
    command.build();
    let matches = with_fixed_usage(command).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return cli::output::fail(&anyhow::Error::new(error)),
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Up(up) => up::run(*up).await.map(|()| ExitCode::SUCCESS),
            Command::Serve { service } => serve::run(service).await.map(|()| ExitCode::SUCCESS),
            Command::Client(command) => cli::run(*command).await,
        }
    });
    // Followers of logs and the like must not keep a finished command alive.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| cli::output::fail(&error))
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    fn undocumented(command: &Command, place: &str, found: &mut Vec<String>) {
        let place = format!("{place} {}", command.get_name());
        if command.get_about().is_none() {
            found.push(place.clone());
        }
        let without = command
            .get_arguments()
            .filter(|one| one.get_help().is_none());
        found.extend(without.map(|one| format!("{place} <{}>", one.get_id())));
        for inner in command.get_subcommands() {
            undocumented(inner, &place, found);
        }
    }

    #[test]
    fn every_command_and_flag_says_what_it_is_for() {
        let mut command = Arguments::command();
        command.build();
        let mut found = Vec::new();

        undocumented(&command, "", &mut found);

        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn usage_in_errors_lists_nothing_that_is_not_required() {
        let mut command = Arguments::command();
        command.build();
        let given = [
            "ferroflow",
            "run",
            "list",
            "--endpoint",
            "http://h",
            "--limit",
            "many",
        ];
        let said = with_fixed_usage(command)
            .try_get_matches_from(given)
            .unwrap_err();
        let said = said.to_string();
        assert!(!said.contains("<URL>"), "{said}");

        let mut command = Arguments::command();
        command.build();
        let given = [
            "ferroflow",
            "run",
            "submit",
            "--endpoint",
            "http://h",
            "--nothing",
        ];
        let said = with_fixed_usage(command)
            .try_get_matches_from(given)
            .unwrap_err();
        let said = said.to_string();
        let usage = "Usage: ferroflow run submit [OPTIONS] <FILE>\n       ferroflow run submit [OPTIONS] --pipeline <PIPELINE>";
        assert!(said.contains(usage), "{said}");
    }
}
