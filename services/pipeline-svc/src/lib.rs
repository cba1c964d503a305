//! Pipelines: definitions, runs of them, their tasks and artifacts.
//!
//! ```text
//! api  ──►  app  ──►  store ──►  domain          RPC CreateRun → app::create_run
//!            ▲                     ▲             → store::runs::insert → event run.created
//! workers ───┘  (actors of runs) ──┘             → workers::runs
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `api` | one file per gRPC service: decode, call `app`, encode |
//! | `app` | use cases; each opens the transaction and writes state and event together |
//! | `domain` | pure: the plan, the engine, expressions, placeholders, fingerprints |
//! | `store` | SQL, one file per aggregate |
//! | `workers` | the actors that drive runs |

mod api;
mod app;
pub mod config;
mod domain;
pub mod package;
mod store;
mod workers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferroflow_artifacts::contents::Contents;
use ferroflow_artifacts::stores::Stores;
use ferroflow_db::Db;
use ferroflow_db::lead::lead;
use ferroflow_proto::kfp::v2beta1::experiment_service_server::ExperimentServiceServer;
use ferroflow_proto::kfp::v2beta1::pipeline_service_server::PipelineServiceServer;
use ferroflow_proto::kfp::v2beta1::recurring_run_service_server::RecurringRunServiceServer;
use ferroflow_proto::kfp::v2beta1::run_service_server::RunServiceServer;
use ferroflow_proto::pipelines::v1::schedule_service_server::ScheduleServiceServer;
use ferroflow_proto::pipelines::v1::task_service_server::TaskServiceServer;
use ferroflow_proto::pipelines::v1::upload_service_server::UploadServiceServer;
use ferroflow_runtime::Runtime;
use ferroflow_service::grpc::{self, Listener};
use ferroflow_service::identity::Verifier;
use ferroflow_service::runner::{Runner, TaskKind};
use ferroflow_types::ValueLimit;
use ferroflow_types::id::RandomIds;
use ferroflow_types::time::SystemClock;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::service::Routes;

use app::drive::Letter;
use app::packages::Packages;
use app::replica::Replica;
use domain::recurring::zone::Zone;
use workers::heartbeat::Steady;

pub use config::Config;

/// The audience of identity tokens for this service.
pub const NAME: &str = "pipeline-svc";

/// The gRPC services that it answers.
pub const SERVICES: [&str; 7] = [
    "kubeflow.pipelines.backend.api.v2beta1.ExperimentService",
    "kubeflow.pipelines.backend.api.v2beta1.PipelineService",
    "kubeflow.pipelines.backend.api.v2beta1.RecurringRunService",
    "kubeflow.pipelines.backend.api.v2beta1.RunService",
    "ferroflow.pipelines.v1.ScheduleService",
    "ferroflow.pipelines.v1.TaskService",
    "ferroflow.pipelines.v1.UploadService",
];

/// What the service is given.
pub struct Deps {
    /// The URL of its database.
    pub database: String,
    /// Where tasks run.
    pub runtime: Arc<dyn Runtime>,
    /// Whether that is a cluster, which has what `platforms.kubernetes` asks for.
    pub kubernetes: bool,
    /// How artifacts are reached.
    pub stores: Stores,
    /// The path or URI where artifacts go unless the settings say otherwise.
    pub artifacts: String,
    /// Its socket, unless the settings name an address.
    pub socket: PathBuf,
    /// What no other replica is called; the same again when this one is started again.
    pub replica: String,
    /// Who may call.
    pub verifier: Verifier,
    /// How large values may be.
    pub values: ValueLimit,
}

/// What is left to others once the service runs.
pub struct Handle {
    /// Its database, for the relay of its events.
    pub db: Db,
    /// Where it listens, when it is not its socket.
    pub address: Option<SocketAddr>,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its database.
    #[error("the database of pipeline-svc")]
    Database(#[from] ferroflow_db::DbError),
    /// Its socket.
    #[error("the socket of pipeline-svc")]
    Socket(#[source] std::io::Error),
    /// Its address.
    #[error("pipelines.listen {listen}: {source}")]
    Listen {
        /// The setting.
        listen: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Where artifacts go, unless a run says otherwise.
    #[error("{setting}: {problem}")]
    Root {
        /// The setting.
        setting: &'static str,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// The zone of cron expressions.
    #[error("pipelines.time_zone: {0}")]
    TimeZone(String),
    /// Networks from which packages may be fetched.
    #[error("pipelines.package_networks: {0}")]
    Networks(String),
    /// The experiment of runs that name none.
    #[error("the default experiment of pipeline-svc")]
    Experiments(#[source] ferroflow_types::Error),
    /// What it begins with.
    #[error("the runs of pipeline-svc")]
    Runs(#[source] ferroflow_types::Error),
}

/// Starts the service; its tasks belong to `runner`.
pub async fn start(config: &Config, deps: Deps, runner: &mut Runner) -> Result<Handle, StartError> {
    let db = Db::open(&deps.database, store::MIGRATIONS).await?;
    let (listener, address) = listen(config, &deps.socket).await?;
    let verifier = deps.verifier.clone();
    let root = root(config, &deps)?;
    let zone =
        Zone::named(&config.time_zone).map_err(|error| StartError::TimeZone(error.to_string()))?;
    let packages = packages(config)?;
    let (ctx, letters) = context(config, deps, (root, zone, packages), db.clone());
    app::experiments::prepare_default(&ctx)
        .await
        .map_err(StartError::Experiments)?;
    let fence = app::replica::enter(&ctx).await.map_err(StartError::Runs)?;
    let steady = Steady::new();
    if !ctx.replica.alone {
        let stop = runner.stopping();
        let beats = workers::heartbeat::beat_until(Arc::clone(&ctx), fence, steady.clone(), stop);
        runner.spawn(TaskKind::Critical, "heartbeat", beats);
    }
    let supervisor = workers::runs::Supervisor::new(Arc::clone(&ctx), letters, steady);
    let stop = runner.stopping();
    runner.spawn(TaskKind::Critical, "runs", supervisor.run(stop));
    let (scheduling, stop) = (Arc::clone(&ctx), runner.stopping());
    let schedules = async move {
        let work = |lead| workers::schedules::fire_while(Arc::clone(&scheduling), lead);
        let (db, holder) = (scheduling.db.clone(), scheduling.replica.id.clone());
        lead(db, workers::schedules::LEASE, &holder, stop, work).await
    };
    runner.spawn(TaskKind::Critical, "schedules", schedules);
    let stop = runner.stopping();
    let message_max = ctx.settings.values.message();
    let routes = routes(api::Api { ctx }, message_max);
    let serving = grpc::serve(listener, routes, verifier, stop);
    runner.spawn(TaskKind::Critical, "pipeline-svc", serving);
    Ok(Handle { db, address })
}

async fn listen(
    config: &Config,
    socket: &Path,
) -> Result<(Listener, Option<SocketAddr>), StartError> {
    if config.listen.is_empty() {
        let listener = grpc::listen(socket).map_err(StartError::Socket)?;
        return Ok((listener.into(), None));
    }
    let failed = |source| StartError::Listen {
        listen: config.listen.clone(),
        source,
    };
    let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener.into(), Some(address)))
}

/// What fetches packages by URL.
fn packages(config: &Config) -> Result<Packages, StartError> {
    let networks = app::packages::networks(&config.package_networks);
    networks.map(Packages::new).map_err(StartError::Networks)
}

/// Where artifacts go unless a run says otherwise.
fn root(config: &Config, deps: &Deps) -> Result<String, StartError> {
    let (setting, root) = match config.pipeline_root.as_str() {
        "" => ("artifacts.url", deps.artifacts.as_str()),
        given => ("pipelines.pipeline_root", given),
    };
    app::root::checked(root, &*deps.runtime, &deps.stores)
        .map_err(|problem| StartError::Root { setting, problem })
}

fn context(
    config: &Config,
    deps: Deps,
    (pipeline_root, zone, packages): (String, Zone, Packages),
    db: Db,
) -> (Arc<app::Ctx>, mpsc::Receiver<Letter>) {
    let active_runs_max = config.active_runs.max(1);
    let (driver, letters) = app::drive::Driver::new(active_runs_max);
    let ctx = app::Ctx {
        replica: Replica {
            id: deps.replica,
            alone: !db.is_postgres(),
        },
        db,
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        runtime: deps.runtime,
        contents: Contents::new(deps.stores.clone()),
        stores: deps.stores,
        packages,
        plans: app::plans::Plans::default(),
        numbers: app::Numbers::default(),
        driver,
        settings: app::Settings {
            pipeline_root,
            caching: config.caching,
            parallel_tasks_max: config.parallel_tasks(),
            active_runs_max,
            kubernetes: deps.kubernetes,
            values: deps.values,
            zone,
        },
    };
    (Arc::new(ctx), letters)
}

fn routes(api: api::Api, message_max: usize) -> Routes {
    macro_rules! server {
        ($server:ident) => {
            $server::new(api.clone())
                .max_decoding_message_size(message_max)
                .max_encoding_message_size(message_max)
        };
    }
    Routes::new(server!(ExperimentServiceServer))
        .add_service(server!(PipelineServiceServer))
        .add_service(server!(RecurringRunServiceServer))
        .add_service(server!(RunServiceServer))
        .add_service(server!(ScheduleServiceServer))
        .add_service(server!(TaskServiceServer))
        .add_service(server!(UploadServiceServer))
}
