//! `ferroflow serve`: one service in a process of its own, any number of times.
//!
//! They meet in PostgreSQL and on the network. A service over SQLite is one replica, the lock of its
//! part of the data folder sees to that; with processes or containers of one machine it must be one.

use anyhow::bail;
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::{self, Runner};
use ferroflow_service::telemetry;

use crate::flags::ParsedFlags;
use crate::folder::{self, DataFolder};
use crate::service::{Process, ServiceEntry};
use crate::settings::is_postgres;
use crate::shared::Shared;
use crate::{gateway, keys, relays};

/// The command of the gateway, which is no service of the table.
pub(crate) const GATEWAY: &str = "gateway";

/// What its help says.
pub(crate) const ABOUT_GATEWAY: &str =
    "The gateway: HTTP, gRPC, event streams. Any number of them may run.";

/// How long a gateway of its own goes on while load balancers hear that it stops.
const DRAIN_S: u32 = 5;

/// Starts a service of the table and serves until a signal.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
pub(crate) async fn service(
    services: &[ServiceEntry],
    service: &ServiceEntry,
    flags: &ParsedFlags,
) -> anyhow::Result<()> {
    let settings = flags.load(services)?;
    let config = &settings.platform;
    let (name, domain) = (service.name, service.domain);
    let _telemetry = telemetry::init(&format!("ferroflow-{name}"), &config.telemetry)?;
    let public_key = keys::load_public(&config.identity)?;
    // Each replica over its own file would publish its events where the others and the gateway do
    // not read.
    if is_postgres((service.database)(&settings.all)?.as_ref())
        && !is_postgres(config.events.database.as_ref())
    {
        bail!(
            "events.database is a file, and {domain}.database is PostgreSQL, which several replicas \
             may share: give the event log a PostgreSQL URL too"
        );
    }
    let folder = DataFolder::lock_service(&config.data_dir, name)?;
    let mut runner = Runner::default();
    Metrics::start(config.telemetry.metrics_listen.as_deref(), &mut runner)?;
    let bus = relays::open_shared_log(&config.events, &folder.data_dir).await?;
    let shared = Shared::new(config.clone(), &folder.data_dir);
    let process = Process {
        settings: &settings.all,
        shared: &shared,
        folder: &folder,
        bus: &bus,
        public_key: &public_key,
        standalone: true,
    };
    let address = service.start(&process, &mut runner).await?;
    let instance = folder.instance(name);
    relays::start_event_workers(&config.events, &bus, &instance, &mut runner).await?;
    let address = match address {
        Some(address) => address.to_string(),
        None => "its socket".to_owned(),
    };
    // Last: whoever waits for this sends requests at once.
    flags.write_port_file(&address)?;
    tracing::info!(address, replica = folder.replica, data_dir = %folder.data_dir.display(), "ready");
    println!("{name} listens on {address}");
    run_until_signal(runner).await
}

/// Starts a gateway and serves until a signal.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
pub(crate) async fn gateway(services: &[ServiceEntry], flags: &ParsedFlags) -> anyhow::Result<()> {
    let mut config = flags.load(services)?.platform;
    let _telemetry = telemetry::init("ferroflow-gateway", &config.telemetry)?;
    let keys = match &config.identity.private_key_file {
        None => bail!(
            "identity.private_key_file is empty, and the services are processes of their own: name \
             the Ed25519 private key (PEM, PKCS#8) whose public half they have"
        ),
        Some(file) => keys::load_private(file)?,
    };
    let remote_upstreams = config.gateway.upstreams();
    if let Some((name, uri)) = remote_upstreams.iter().next()
        && !is_postgres(config.events.database.as_ref())
    {
        bail!(
            "events.database is empty, and {name} ({uri}) may be on another machine: give the \
             PostgreSQL URL of its event log"
        );
    }
    // Only here: `up` has no load balancer in front and stops at once.
    config.gateway.drain_s.get_or_insert(DRAIN_S);
    // With all services on the network nothing is kept here, and no folder is needed.
    let data_dir = if remote_upstreams.len() < services.len() {
        folder::absolute(&config.data_dir)?
    } else {
        config.data_dir.clone()
    };
    let mut runner = Runner::default();
    let metrics = Metrics::start(config.telemetry.metrics_listen.as_deref(), &mut runner)?;
    let bus = relays::open_shared_log(&config.events, &data_dir).await?;
    let signer = keys.signer();
    let gateway = gateway::start(
        &config,
        services,
        &data_dir,
        bus,
        signer,
        metrics,
        &mut runner,
    );
    let gateway = gateway.await?;
    let address = gateway.address;
    flags.write_port_file(&address.to_string())?;
    tracing::info!(%address, "ready");
    println!("listening on http://{address}");
    run_until_signal(runner).await
}

/// Runs until a signal, then stops.
pub(crate) async fn run_until_signal(runner: Runner) -> anyhow::Result<()> {
    let signal = async {
        if let Err(error) = runner::shutdown_signal().await {
            tracing::error!(%error, "signals cannot be waited for");
        }
    };
    runner.run(signal).await.map_err(anyhow::Error::msg)
}
