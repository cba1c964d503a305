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

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// The argument that makes this program a launcher; see `ferroflow_launcher`.
const LAUNCH: &str = "__launch";

/// Pipelines from end to end on one machine.
#[derive(Debug, Parser)]
#[command(name = "ferroflow", version, about, propagate_version = true)]
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
    Client(cli::ClientCommand),
}

fn main() -> ExitCode {
    // Launchers are started for every step: no runtime, no parser, straight to work.
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(first), Some(dir)) = (arguments.next(), arguments.next())
        && first == LAUNCH
    {
        return match ferroflow_launcher::launch(Path::new(&dir)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let arguments = Arguments::parse();
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
            Command::Client(command) => cli::run(command).await,
        }
    });
    // Followers of logs and the like must not keep a finished command alive.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| cli::output::fail(&error))
}
