//! `ferroflow up`: every service in one process, over one data folder.
//!
//! ```text
//! <data dir>/
//!   lock           held by the process that owns the folder; says which one
//!   replica        what that process is called among others on one database
//!   pipelines.db   definitions, runs, tasks, artifacts
//!   events.db      the event log
//!   sockets/       gRPC between the services
//!   artifacts/     what tasks made
//!   attempts/      one folder per attempt: its log, its report
//!   workspaces/    folders that the tasks of a run share
//!   envs/          Python environments
//! ```

use ferroflow_service::metrics::Metrics;
use ferroflow_service::runner::Runner;
use ferroflow_service::telemetry;

use crate::flags::Flags;
use crate::relays;
use crate::wiring::{self, Place};

/// Starts everything and serves until a signal.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    let config = flags.load()?;
    let _telemetry = telemetry::init("ferroflow", &config.telemetry)?;
    let place = Place::lock(&config)?;
    let mut runner = Runner::default();
    let metrics = Metrics::start(&config.telemetry.metrics_listen, &mut runner)?;
    let keys = wiring::own_keys(&config.identity)?;
    let bus = wiring::bus(&config, &place.data_dir).await?;
    // Both are one process here, whatever the settings say of processes of their own.
    let mut config = config;
    config.pipelines.listen.clear();
    config.gateway.pipeline_svc.clear();
    wiring::pipelines(&config, &place, &bus, keys.public(), &mut runner).await?;
    let instance = place.instance("up");
    relays::start_duties(&config.events, &bus, &instance, &mut runner).await?;
    let way = wiring::way(&config, &place.data_dir)?;
    let gateway = wiring::gateway(&config, way, bus, keys.signer(), metrics, &mut runner).await?;
    let address = gateway.address;
    flags.announce(&address.to_string())?;
    tracing::info!(%address, data_dir = %place.data_dir.display(), "ready");
    println!("listening on http://{address}");
    wiring::until_signal(runner).await
}
