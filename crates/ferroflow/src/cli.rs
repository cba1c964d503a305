//! The client: what users type. It speaks native gRPC to the gateway.

mod consume;
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
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{self, Endpoint};
use tonic::{Request, Status};

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
    /// The key by which a platform that asks for one knows who calls.
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "FERROFLOW_API_KEY",
        hide_env_values = true
    )]
    pub(crate) api_key: Option<String>,
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

/// A connection to the platform; every call carries the key.
type Channel = InterceptedService<transport::Channel, Key>;

/// `Bearer <key>`, where there is one.
#[derive(Debug, Clone)]
struct Key(Option<AsciiMetadataValue>);

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

async fn connect(global: &Global) -> anyhow::Result<Channel> {
    let endpoint = &global.endpoint;
    let channel = Endpoint::from_shared(endpoint.clone())
        .with_context(|| format!("{endpoint} is not a URL such as http://127.0.0.1:8080"))?
        .connect()
        .await
        .with_context(|| {
            format!(
                "nobody answers at {endpoint}: start a platform (`ferroflow up`), or say where it \
                 is (--endpoint)"
            )
        })?;
    let key = match &global.api_key {
        None => None,
        Some(key) => {
            let key = format!("Bearer {key}").parse::<AsciiMetadataValue>();
            let mut key = key.context("--api-key: it holds what no header may hold")?;
            key.set_sensitive(true);
            Some(key)
        }
    };
    Ok(InterceptedService::new(channel, Key(key)))
}
