//! `ferroflow serve`: one service in a process of its own, any number of times.
//!
//! They meet in PostgreSQL and on the network. pipeline-svc over SQLite is one replica, its data
//! folder's lock sees to that; with processes or containers of one machine it must be one.

use anyhow::bail;
use ferroflow_artifacts::stores::Secret;
use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::Runner;
use ferroflow_service::telemetry;

use crate::config::RuntimeKind;
use crate::flags::Flags;
use crate::wiring::{self, Place};
use crate::{folder, relays};

/// How long a gateway of its own goes on while load balancers hear that it stops.
const DRAIN_S: u32 = 5;

/// Which service.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Service {
    /// Pipelines and runs: their API, what drives them, what moves their events on. Of several
    /// replicas (with PostgreSQL) each drives some runs.
    PipelineSvc(Box<Flags>),
    /// The front door: HTTP, gRPC, event streams. Any number of them may run.
    Gateway(Box<Flags>),
}

/// Starts the service and serves until a signal.
pub(crate) async fn run(service: Service) -> anyhow::Result<()> {
    match service {
        Service::PipelineSvc(flags) => pipeline_svc(&flags).await,
        Service::Gateway(flags) => gateway(&flags).await,
    }
}

#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
async fn pipeline_svc(flags: &Flags) -> anyhow::Result<()> {
    let config = flags.load()?;
    let _telemetry = telemetry::init("ferroflow-pipeline-svc", &config.telemetry)?;
    let public_key = wiring::public_key(&config.identity)?;
    let shared = is_postgres(&config.pipelines.database);
    if shared && !is_postgres(&config.events.database) {
        bail!(
            "events.database is a file, and pipelines.database is PostgreSQL, which several replicas \
             may share: give the event log a PostgreSQL URL too"
        );
    }
    let place = Place::lock(&config)?;
    if shared && config.runtime != RuntimeKind::Kubernetes {
        tracing::warn!(
            "tasks run on this machine only (runtime): start one replica, others would not find them"
        );
    }
    let mut runner = Runner::default();
    Metrics::start(&config.telemetry.metrics_listen, &mut runner)?;
    let bus = wiring::shared_bus(&config, &place.data_dir).await?;
    let handle = wiring::pipelines(&config, &place, &bus, public_key, &mut runner).await?;
    let instance = place.instance(ferroflow_pipeline_svc::NAME);
    relays::start_duties(&config.events, &bus, &instance, &mut runner).await?;
    let address = match handle.address {
        Some(address) => address.to_string(),
        None => "its socket".to_owned(),
    };
    flags.announce(&address)?;
    tracing::info!(address, replica = place.replica, data_dir = %place.data_dir.display(), "ready");
    println!("pipeline-svc listens on {address}");
    wiring::until_signal(runner).await
}

#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
async fn gateway(flags: &Flags) -> anyhow::Result<()> {
    let mut config = flags.load()?;
    let _telemetry = telemetry::init("ferroflow-gateway", &config.telemetry)?;
    let keys = match config.identity.private_key_file.as_str() {
        "" => bail!(
            "identity.private_key_file is empty, and pipeline-svc is a process of its own: name the \
             Ed25519 private key (PEM, PKCS#8) whose public half it has"
        ),
        file => wiring::shared_keys(file)?,
    };
    if !is_postgres(&config.events.database) && !config.gateway.pipeline_svc.is_empty() {
        bail!(
            "events.database is empty, and pipeline-svc ({}) may be on another machine: give the \
             PostgreSQL URL of its event log",
            config.gateway.pipeline_svc
        );
    }
    config.gateway.drain_s.get_or_insert(DRAIN_S);
    // With pipeline-svc on the network nothing is kept here, and no folder is needed.
    let data_dir = match config.gateway.pipeline_svc.as_str() {
        "" => folder::absolute(&config.data_dir)?,
        _ => config.data_dir.clone(),
    };
    let mut runner = Runner::default();
    let metrics = Metrics::start(&config.telemetry.metrics_listen, &mut runner)?;
    let bus = wiring::shared_bus(&config, &data_dir).await?;
    let way = wiring::way(&config, &data_dir)?;
    let signer = keys.signer();
    let gateway = wiring::gateway(&config, way, bus, signer, metrics, &mut runner).await?;
    let address = gateway.address;
    flags.announce(&address.to_string())?;
    tracing::info!(%address, "ready");
    println!("listening on http://{address}");
    wiring::until_signal(runner).await
}

/// Whether it is a database that several processes may share.
fn is_postgres(database: &Secret) -> bool {
    !matches!(database.expose(), "") && !database.expose().starts_with("sqlite:")
}
