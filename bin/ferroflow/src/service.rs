//! The table of services, and what follows from an entry of it.

use std::net::SocketAddr;
use std::pin::Pin;

use anyhow::Context as _;
use ferroflow_bus::Bus;
use ferroflow_db::Db;
use ferroflow_pipeline_svc::PipelineSvc;
use ferroflow_service::config::{ConfigError, ConfigPart, LoadedConfig};
use ferroflow_service::grpc::{self, Listener};
use ferroflow_service::identity::PublicKey;
use ferroflow_service::runner::{Runner, TaskKind};
use ferroflow_service::service::{CommonDeps, Service, Settings as _};
use ferroflow_types::Secret;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::folder::DataFolder;
use crate::relays;
use crate::shared::Shared;

/// Every service of the project but the gateway, which is in front of them.
pub fn services() -> Vec<ServiceEntry> {
    vec![ServiceEntry::of::<PipelineSvc>()]
}

/// How a service gets what is its own out of what the services of a process share.
pub trait ServiceDeps: Service {
    /// What it is given.
    ///
    /// # Errors
    /// Settings that do not fit together, and parts that cannot be reached.
    fn deps(
        shared: &Shared,
        config: &Self::Config,
    ) -> impl Future<Output = anyhow::Result<Self::Deps>> + Send;
}

/// A service in the table: what its [`Service`] says, without its types.
pub struct ServiceEntry {
    pub(crate) name: &'static str,
    pub(crate) domain: &'static str,
    pub(crate) about: &'static str,
    pub(crate) grpc: &'static [&'static str],
    pub(crate) contracts: Option<&'static [u8]>,
    /// Its section of the settings.
    pub(crate) part: fn() -> ConfigPart,
    /// The command with its flags as well.
    pub(crate) flags: fn(clap::Command) -> clap::Command,
    /// Those of its flags that were given, in the shape of its section.
    pub(crate) flag_settings: fn(&clap::ArgMatches) -> anyhow::Result<Value>,
    /// The PostgreSQL URL of its database, if it is not a file in the data folder.
    pub(crate) database: fn(&LoadedConfig) -> Result<Option<Secret>, ConfigError>,
    start: for<'a> fn(&'a Process<'_>, &'a mut Runner) -> StartFuture<'a>,
}

type StartFuture<'a> =
    Pin<Box<dyn Future<Output = anyhow::Result<Option<SocketAddr>>> + Send + 'a>>;

impl ServiceEntry {
    /// The entry of a service.
    pub fn of<S: ServiceDeps>() -> Self {
        Self {
            name: S::NAME,
            domain: S::DOMAIN,
            about: S::ABOUT,
            grpc: S::GRPC,
            contracts: S::CONTRACTS,
            part: || ConfigPart::section::<S::Config>(S::DOMAIN),
            flags: <S::Flags as clap::Args>::augment_args,
            flag_settings: |matches| {
                let flags = <S::Flags as clap::FromArgMatches>::from_arg_matches(matches)?;
                Ok(serde_json::to_value(&flags)?)
            },
            database: |settings| {
                let config: S::Config = settings.section(S::DOMAIN)?;
                Ok(config.database().cloned())
            },
            start: |process, runner| Box::pin(start::<S>(process, runner)),
        }
    }

    /// Starts the service, its server and the relay of its events; where it listens, when it is not its
    /// socket.
    pub(crate) async fn start(
        &self,
        process: &Process<'_>,
        runner: &mut Runner,
    ) -> anyhow::Result<Option<SocketAddr>> {
        (self.start)(process, runner).await
    }
}

/// What the services of a process are started with.
pub(crate) struct Process<'a> {
    pub(crate) settings: &'a LoadedConfig,
    pub(crate) shared: &'a Shared,
    pub(crate) folder: &'a DataFolder,
    pub(crate) bus: &'a Bus,
    pub(crate) public_key: &'a PublicKey,
    /// Whether the service is a process of its own, which may listen on the network.
    pub(crate) standalone: bool,
}

async fn start<S: ServiceDeps>(
    process: &Process<'_>,
    runner: &mut Runner,
) -> anyhow::Result<Option<SocketAddr>> {
    let config: S::Config = process.settings.section(S::DOMAIN)?;
    let folder = process.folder;
    // Before the database: what cannot start leaves it as the former release reads it.
    let deps = S::deps(process.shared, &config).await?;
    let url = folder.database(config.database(), S::DOMAIN);
    let db = Db::open(&url, S::MIGRATIONS).await;
    let db = db.with_context(|| format!("the database of {}", S::NAME))?;
    // In one process with all others, the gateway reaches it by its socket.
    let address = config.listen().filter(|_| process.standalone);
    let (listener, address) = listen::<S>(address, folder).await?;
    let common = CommonDeps {
        db: db.clone(),
        replica: folder.replica.clone(),
        values: process.shared.config().value_max,
    };
    let routes = S::start(&config, common, deps, runner).await?;
    let verifier = process.public_key.verifier(S::NAME);
    let serving = grpc::serve(listener, routes, verifier, runner.stop_token());
    // A process whose service takes no calls any more is of no use, so it ends.
    runner.spawn(TaskKind::Critical, S::NAME, serving);
    let instance = folder.instance(S::NAME);
    relays::start_relay(S::DOMAIN, db, process.bus, &instance, runner);
    Ok(address)
}

/// Listens at the address, or at the service's socket where none is given; the address that came of it.
async fn listen<S: Service>(
    address: Option<&str>,
    folder: &DataFolder,
) -> anyhow::Result<(Listener, Option<SocketAddr>)> {
    let Some(address) = address else {
        let listener = grpc::listen(&folder.socket(S::NAME));
        let listener = listener.with_context(|| format!("the socket of {}", S::NAME))?;
        return Ok((listener.into(), None));
    };
    let failed = || format!("{}.listen {address}", S::DOMAIN);
    let listener = TcpListener::bind(address).await.with_context(failed)?;
    let address = listener.local_addr().with_context(failed)?;
    Ok((listener.into(), Some(address)))
}
