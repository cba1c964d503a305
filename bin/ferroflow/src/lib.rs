//! The whole platform in one process or in several, and its command line.
//!
//! What services there are is a table, [`services`]. A program with further ones is
//! [`run`] over a longer table.

mod cli;
mod config;
mod docker;
mod flags;
mod folder;
mod gateway;
mod keys;
mod relays;
mod retention;
mod runtimes;
mod serve;
mod service;
mod settings;
mod shared;
mod up;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgMatches, FromArgMatches as _};

use flags::ParsedFlags;
pub use service::{ServiceDeps, ServiceEntry, services};
pub use shared::Shared;

/// The argument that makes this program a launcher; see `ferroflow_launcher`.
const LAUNCH_SUBCOMMAND: &str = "__launch";

/// The whole command line.
fn command(services: &[ServiceEntry]) -> clap::Command {
    let every: Vec<_> = services.iter().collect();
    let up = flags::augment(clap::Command::new("up"), &every, services)
        .about("Start the platform and serve until interrupted")
        .long_about(None);
    let serve = clap::Command::new("serve")
        .about("Start one service as a process of its own, as clusters do")
        .subcommand_required(true)
        .arg_required_else_help(true);
    let subcommand = |name: &'static str, about: &'static str, selected: &[&ServiceEntry]| {
        let command = flags::augment(clap::Command::new(name), selected, services);
        command.about(about).long_about(None)
    };
    let serve = services.iter().fold(serve, |serve, service| {
        serve.subcommand(subcommand(service.name, service.about, &[service]))
    });
    let serve = serve.subcommand(subcommand(serve::GATEWAY, serve::ABOUT_GATEWAY, &[]));
    let command = clap::Command::new("ferroflow")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(up)
        .subcommand(serve);
    let mut command = <cli::ClientCommand as clap::Subcommand>::augment_subcommands(command)
        .about("Pipelines from end to end on one machine")
        .long_about(None);
    command.build();
    with_fixed_usage(command)
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

/// The program, with these services.
pub fn run(services: &[ServiceEntry]) -> ExitCode {
    // Launchers are started for every step: no runtime, no parser, straight to work.
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == LAUNCH_SUBCOMMAND)
    {
        return ferroflow_launcher::main(&arguments.collect::<Vec<_>>());
    }
    let matches = command(services).get_matches();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return cli::output::fail(&anyhow::Error::new(error)),
    };
    let done = runtime.block_on(dispatch(services, &matches));
    // Followers of logs and the like must not keep a finished command alive.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| cli::output::fail(&error))
}

async fn dispatch(services: &[ServiceEntry], matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("up", matches)) => {
            let every: Vec<_> = services.iter().collect();
            up::run(services, &ParsedFlags::read(matches, &every, services)?).await?;
        }
        Some(("serve", matches)) => {
            let (name, matches) = matches.subcommand().context("no service is named")?;
            match services.iter().find(|service| service.name == name) {
                Some(service) => {
                    let flags = ParsedFlags::read(matches, &[service], services)?;
                    serve::service(services, service, &flags).await?;
                }
                None => {
                    serve::gateway(services, &ParsedFlags::read(matches, &[], services)?).await?;
                }
            }
        }
        _ => {
            let client = cli::ClientCommand::from_arg_matches(matches);
            let client = client.unwrap_or_else(|error| error.exit());
            return cli::run(client, services).await;
        }
    }
    Ok(ExitCode::SUCCESS)
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
        let without_help = command
            .get_arguments()
            .filter(|one| one.get_help().is_none());
        found.extend(without_help.map(|one| format!("{place} <{}>", one.get_id())));
        for inner in command.get_subcommands() {
            undocumented(inner, &place, found);
        }
    }

    #[test]
    fn every_command_and_flag_says_what_it_is_for() {
        let command = super::command(&services());
        let mut found = Vec::new();

        undocumented(&command, "", &mut found);

        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn usage_in_errors_lists_nothing_that_is_not_required() {
        let command = super::command(&services());
        let args = [
            "ferroflow",
            "run",
            "list",
            "--endpoint",
            "http://h",
            "--limit",
            "many",
        ];
        let message = command.try_get_matches_from(args).unwrap_err();
        let message = message.to_string();
        assert!(!message.contains("<URL>"), "{message}");

        let command = super::command(&services());
        let args = [
            "ferroflow",
            "run",
            "submit",
            "--endpoint",
            "http://h",
            "--nothing",
        ];
        let message = command.try_get_matches_from(args).unwrap_err();
        let message = message.to_string();
        let usage = "Usage: ferroflow run submit [OPTIONS] <FILE>\n       ferroflow run submit [OPTIONS] --pipeline <PIPELINE>";
        assert!(message.contains(usage), "{message}");
    }
}
