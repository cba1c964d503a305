//! The table of services, and what follows from a row of it.

use std::net::SocketAddr;

use anyhow::Context as _;
use async_trait::async_trait;
use ferroflow_bus::Bus;
use ferroflow_db::Db;
use ferroflow_pipeline_svc::PipelineSvc;
use ferroflow_service::config::{ConfigError, Loaded, Part};
use ferroflow_service::grpc;
use ferroflow_service::identity::PublicKey;
use ferroflow_service::runner::{Runner, TaskKind};
use ferroflow_service::service::{Common, Service, Settings as _};
use ferroflow_types::Secret;
use serde_json::Value;

use crate::folder::DataFolder;
use crate::listen::{self, Address};
use crate::relays;
use crate::shared::Shared;

/// Every service of the project but the gateway, which is in front of them.
pub fn services() -> Vec<Row> {
    vec![Row::of::<PipelineSvc>()]
}

/// How a service gets what is its own out of what the services of a process share.
pub trait Wired: Service {
    /// What it is given.
    ///
    /// # Errors
    /// Settings that do not fit together, and parts that cannot be reached.
    fn deps(
        shared: &Shared,
        config: &Self::Config,
    ) -> impl Future<Output = anyhow::Result<Self::Deps>> + Send;
}

/// A service in the table.
pub struct Row(Box<dyn AnyService>);

/// What the services of a process are started with.
pub(crate) struct Process<'a> {
    pub(crate) settings: &'a Loaded,
    pub(crate) shared: &'a Shared,
    pub(crate) folder: &'a DataFolder,
    pub(crate) bus: &'a Bus,
    pub(crate) public_key: &'a PublicKey,
    /// Whether the service is a process of its own, which may listen on the network.
    pub(crate) alone: bool,
}

/// A [`Service`] whose types are not told.
#[async_trait]
trait AnyService: Send + Sync {
    fn name(&self) -> &'static str;
    fn domain(&self) -> &'static str;
    fn about(&self) -> &'static str;
    fn grpc(&self) -> &'static [&'static str];
    fn contracts(&self) -> Option<&'static [u8]>;
    fn part(&self) -> Part;
    fn flags(&self, command: clap::Command) -> clap::Command;
    fn given(&self, matches: &clap::ArgMatches) -> anyhow::Result<Value>;
    fn database(&self, settings: &Loaded) -> Result<Secret, ConfigError>;
    async fn start(
        &self,
        process: &Process<'_>,
        runner: &mut Runner,
    ) -> anyhow::Result<Option<SocketAddr>>;
}

struct Of<S>(std::marker::PhantomData<fn() -> S>);

impl Row {
    /// The row of a service.
    pub fn of<S: Wired>() -> Self {
        Self(Box::new(Of::<S>(std::marker::PhantomData)))
    }

    /// [`Service::NAME`].
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// [`Service::DOMAIN`].
    pub(crate) fn domain(&self) -> &'static str {
        self.0.domain()
    }

    /// [`Service::ABOUT`].
    pub(crate) fn about(&self) -> &'static str {
        self.0.about()
    }

    /// [`Service::GRPC`].
    pub(crate) fn grpc(&self) -> &'static [&'static str] {
        self.0.grpc()
    }

    /// [`Service::CONTRACTS`].
    pub(crate) fn contracts(&self) -> Option<&'static [u8]> {
        self.0.contracts()
    }

    /// Its section of the settings.
    pub(crate) fn part(&self) -> Part {
        self.0.part()
    }

    /// The command with its flags as well.
    pub(crate) fn flags(&self, command: clap::Command) -> clap::Command {
        self.0.flags(command)
    }

    /// Those of its flags that were given, in the shape of its section.
    pub(crate) fn given(&self, matches: &clap::ArgMatches) -> anyhow::Result<Value> {
        self.0.given(matches)
    }

    /// The PostgreSQL URL of its database; empty for a file in the data folder.
    pub(crate) fn database(&self, settings: &Loaded) -> Result<Secret, ConfigError> {
        self.0.database(settings)
    }

    /// Starts the service, its server and the relay of its events; where it listens, when it is not its
    /// socket.
    pub(crate) async fn start(
        &self,
        process: &Process<'_>,
        runner: &mut Runner,
    ) -> anyhow::Result<Option<SocketAddr>> {
        self.0.start(process, runner).await
    }
}

#[async_trait]
impl<S: Wired> AnyService for Of<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn domain(&self) -> &'static str {
        S::DOMAIN
    }

    fn about(&self) -> &'static str {
        S::ABOUT
    }

    fn grpc(&self) -> &'static [&'static str] {
        S::GRPC
    }

    fn contracts(&self) -> Option<&'static [u8]> {
        S::CONTRACTS
    }

    fn part(&self) -> Part {
        Part::section::<S::Config>(S::DOMAIN)
    }

    fn flags(&self, command: clap::Command) -> clap::Command {
        <S::Flags as clap::Args>::augment_args(command)
    }

    fn given(&self, matches: &clap::ArgMatches) -> anyhow::Result<Value> {
        let flags = <S::Flags as clap::FromArgMatches>::from_arg_matches(matches)?;
        Ok(serde_json::to_value(&flags)?)
    }

    fn database(&self, settings: &Loaded) -> Result<Secret, ConfigError> {
        let config: S::Config = settings.section(S::DOMAIN)?;
        Ok(config.database().clone())
    }

    async fn start(
        &self,
        process: &Process<'_>,
        runner: &mut Runner,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let config: S::Config = process.settings.section(S::DOMAIN)?;
        let folder = process.folder;
        // Before the database: what cannot start leaves it as the former release reads it.
        let deps = S::deps(process.shared, &config).await?;
        let url = folder.database(config.database().expose(), S::DOMAIN);
        let db = Db::open(&url, S::MIGRATIONS).await;
        let db = db.with_context(|| format!("the database of {}", S::NAME))?;
        let address = match config.listen() {
            given if process.alone && !given.is_empty() => Address::Network(given),
            _ => Address::Socket(folder.socket(S::NAME)),
        };
        let (listener, address) = listen::bind(&address, S::NAME, S::DOMAIN).await?;
        let common = Common {
            db: db.clone(),
            replica: folder.replica.clone(),
            values: process.shared.config().value_max,
        };
        let routes = S::start(&config, common, deps, runner).await?;
        let verifier = process.public_key.verifier(S::NAME);
        let serving = grpc::serve(listener, routes, verifier, runner.stopping());
        runner.spawn(TaskKind::Critical, S::NAME, serving);
        let instance = folder.instance(S::NAME);
        relays::start_relay(S::DOMAIN, db, process.bus, &instance, runner);
        Ok(address)
    }
}
