//! The client: what users type. It speaks native gRPC to the gateway.

mod events;
mod experiment;
pub(crate) mod output;
mod pipeline;
mod run;
mod spec;
mod watch;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use tonic::transport::{Channel, Endpoint};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What every client command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// Where the platform is.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "FERROFLOW_ENDPOINT",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) endpoint: String,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// Commands that talk to a running platform.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ClientCommand {
    /// Compiled pipelines and their versions.
    Pipeline {
        #[command(subcommand)]
        command: pipeline::Command,
        #[command(flatten)]
        global: Global,
    },
    /// Runs of pipelines.
    Run {
        #[command(subcommand)]
        command: run::Command,
        #[command(flatten)]
        global: Global,
    },
    /// Experiments: folders of runs.
    Experiment {
        #[command(subcommand)]
        command: experiment::Command,
        #[command(flatten)]
        global: Global,
    },
    /// What happens on the platform.
    Events {
        #[command(subcommand)]
        command: events::Command,
        #[command(flatten)]
        global: Global,
    },
}

/// Runs a client command.
pub(crate) async fn run(command: ClientCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClientCommand::Pipeline { command, global } => pipeline::run(command, &global).await,
        ClientCommand::Run { command, global } => run::run(command, &global).await,
        ClientCommand::Experiment { command, global } => experiment::run(command, &global).await,
        ClientCommand::Events { command, global } => events::run(command, &global).await,
    }
}

/// A connection to the platform.
async fn connect(global: &Global) -> anyhow::Result<Channel> {
    let endpoint = &global.endpoint;
    Endpoint::from_shared(endpoint.clone())
        .with_context(|| format!("{endpoint} is not a URL such as http://127.0.0.1:8080"))?
        .connect()
        .await
        .with_context(|| format!("cannot reach {endpoint}: is `ferroflow up` running?"))
}
