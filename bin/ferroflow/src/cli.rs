//! The client: what users type. It speaks native gRPC to the gateway.

mod artifact;
mod clients;
mod completions;
mod connect;
mod consume;
mod controls;
mod endpoint_errors;
mod events;
mod experiment;
mod find;
mod follow;
mod log_text;
pub(crate) mod output;
mod pages;
mod pipeline;
mod pipeline_args;
mod python_file;
mod recurring_run;
mod remarks;
mod run;
mod spec;
mod table;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use connect::{Channel, connect};

use crate::service::ServiceEntry;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: as wide as the terminal, with the first characters of ids.
    Table,
    /// For people with wide terminals: whole ids, more columns, nothing cut.
    Wide,
    /// For programs.
    Json,
}

/// What every client command takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// Where the platform is, for example https://host/path [default: what the client's file says,
    /// else http://127.0.0.1:8080].
    #[arg(long, global = true, value_name = "URL", env = "FERROFLOW_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// The key by which a platform that asks for one knows who calls.
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "FERROFLOW_API_KEY",
        hide_env_values = true
    )]
    pub(crate) api_key: Option<String>,
    /// Certificates (PEM) of the authorities that may vouch for an https:// endpoint [default: the
    /// system's].
    #[arg(long, global = true, value_name = "FILE", env = "FERROFLOW_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The client's file, TOML with endpoint, api_key and ca_file [default:
    /// ~/.config/ferroflow/client.toml].
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "FERROFLOW_CLIENT_CONFIG"
    )]
    pub(crate) client_config: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

/// Commands that talk to a running platform.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ClientCommand {
    /// Runs of pipelines.
    #[command(after_help = run::EXAMPLES)]
    Run {
        #[command(subcommand)]
        command: run::Command,
        #[command(flatten)]
        global: Global,
    },
    /// Compiled pipelines and their versions.
    #[command(after_help = pipeline::EXAMPLES)]
    Pipeline {
        #[command(subcommand)]
        command: pipeline::Command,
        #[command(flatten)]
        global: Global,
    },
    /// Schedules that create runs.
    #[command(after_help = recurring_run::EXAMPLES)]
    RecurringRun {
        #[command(subcommand)]
        command: recurring_run::Command,
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
    /// What tasks made: data, models, metrics, reports.
    #[command(after_help = artifact::EXAMPLES)]
    Artifact {
        #[command(subcommand)]
        command: artifact::Command,
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
    /// Print the completions of a shell.
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::Completions),
}

/// Runs a client command of a program with these services.
pub(crate) async fn run(
    command: ClientCommand,
    services: &[ServiceEntry],
) -> anyhow::Result<ExitCode> {
    match command {
        ClientCommand::Pipeline { command, global } => pipeline::run(command, &global).await,
        ClientCommand::Run { command, global } => run::run(command, &global).await,
        ClientCommand::RecurringRun { command, global } => {
            recurring_run::run(command, &global).await
        }
        ClientCommand::Experiment { command, global } => experiment::run(command, &global).await,
        ClientCommand::Artifact { command, global } => artifact::run(command, &global).await,
        ClientCommand::Events { command, global } => events::run(command, &global, services).await,
        ClientCommand::Completions(completions) => completions.print(crate::command(services)),
    }
}
