//! `ferroflow up`: every service in one process, over one data folder.
//!
//! ```text
//! <data dir>/
//!   lock           held by the process that owns the folder; says which one
//!   lock.<service> held by a service that is a process of its own
//!   replica        what that process is called among others on one database
//!   <domain>.db    what a service keeps: of pipelines definitions, runs, tasks, artifacts
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

use crate::flags::ParsedFlags;
use crate::folder::DataFolder;
use crate::service::{Process, ServiceEntry};
use crate::shared::Shared;
use crate::{gateway, keys, relays, serve};

/// Starts everything and serves until a signal.
#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
pub(crate) async fn run(services: &[ServiceEntry], flags: &ParsedFlags) -> anyhow::Result<()> {
    let settings = flags.load(services)?;
    let mut config = settings.platform.clone();
    let _telemetry = telemetry::init("ferroflow", &config.telemetry)?;
    let folder = DataFolder::lock_all(&config.data_dir)?;
    // Linked on another thread while this one waits for databases: the gateway needs the
    // descriptors at the end of the start, and linking took 14 of its 57 ms.
    drop(tokio::task::spawn_blocking(ferroflow_proto::pool));
    let mut runner = Runner::default();
    let metrics = Metrics::start(config.telemetry.metrics_listen.as_deref(), &mut runner)?;
    let keys = keys::load_or_generate(&config.identity)?;
    let shared = Shared::new(config.clone(), &folder.data_dir);
    // Both at once: the runtime starts a launcher to try read-only mounts, which takes as long as
    // opening the log.
    let log = relays::open_log(&config.events, &folder.data_dir);
    // The runtime stays in `shared`, where services get it.
    let (bus, _runtime) = tokio::try_join!(log, shared.runtime())?;
    let public_key = keys.public();
    let process = Process {
        settings: &settings.all,
        shared: &shared,
        folder: &folder,
        bus: &bus,
        public_key: &public_key,
        standalone: false,
    };
    // Before the gateway, which forwards requests as soon as it listens.
    for service in services {
        service.start(&process, &mut runner).await?;
    }
    let instance = folder.instance("up");
    relays::start_event_workers(&config.events, &bus, &instance, &mut runner).await?;
    // All are one process here, whatever the settings say of processes of their own.
    config.gateway.forget_upstreams();
    let (data_dir, signer) = (&folder.data_dir, keys.signer());
    let gateway = gateway::start(
        &config,
        services,
        data_dir,
        bus,
        signer,
        metrics,
        &mut runner,
    );
    let gateway = gateway.await?;
    let address = gateway.address;
    // Last: whoever waits for this sends requests at once.
    flags.write_port_file(&address.to_string())?;
    tracing::info!(%address, data_dir = %folder.data_dir.display(), "ready");
    println!("listening on http://{address}");
    serve::run_until_signal(runner).await
}
