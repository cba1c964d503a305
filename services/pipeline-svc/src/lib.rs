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
//! | `domain` | pure: what is stored and shown; how a run gets on is `ferroflow_pipeline_engine` |
//! | `store` | SQL, one file per aggregate |
//! | `workers` | the actors that drive runs |

mod api;
mod app;
pub mod config;
mod domain;
pub mod package;
mod store;
mod workers;

use std::sync::Arc;

use ferroflow_artifacts::contents::Contents;
use ferroflow_artifacts::stores::Stores;
use ferroflow_db::Migration;
use ferroflow_db::lead::run_as_leader;
use ferroflow_ownership::{Inbox, Member, Ownership, Supervisor};
use ferroflow_proto::kfp::v2beta1::experiment_service_server::ExperimentServiceServer;
use ferroflow_proto::kfp::v2beta1::pipeline_service_server::PipelineServiceServer;
use ferroflow_proto::kfp::v2beta1::recurring_run_service_server::RecurringRunServiceServer;
use ferroflow_proto::kfp::v2beta1::run_service_server::RunServiceServer;
use ferroflow_proto::pipelines::v1::schedule_service_server::ScheduleServiceServer;
use ferroflow_proto::pipelines::v1::task_service_server::TaskServiceServer;
use ferroflow_proto::pipelines::v1::upload_service_server::UploadServiceServer;
use ferroflow_runtime::Runtime;
use ferroflow_schedule::Zone;
use ferroflow_service::runner::{Runner, TaskKind};
use ferroflow_service::service::{CommonDeps, Service};
use ferroflow_types::Clock;
use ferroflow_types::id::{IdSource, RandomIds};
use ferroflow_types::time::SystemClock;
use tonic::service::Routes;

use app::packages::PackageFetcher;
use store::ownership::Runs;
use workers::runs::ActorFactory;

pub use config::{Config, Flags};

/// Pipelines and runs.
#[derive(Debug)]
pub struct PipelineSvc;

/// What the service is given beside what every service is.
pub struct Deps {
    /// Where tasks run.
    pub runtime: Arc<dyn Runtime>,
    /// How artifacts are reached.
    pub stores: Stores,
    /// The path or URI where artifacts go unless the settings say otherwise.
    pub artifacts: String,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
    /// The lease of this replica, and the runs that it drove before a restart.
    #[error("the runs of pipeline-svc")]
    Runs(#[source] ferroflow_types::Error),
}

impl Service for PipelineSvc {
    const NAME: &'static str = "pipeline-svc";
    const DOMAIN: &'static str = "pipelines";
    const ABOUT: &'static str = "Pipelines and runs: their API, what drives them, what moves their \
        events on. Of several replicas (with PostgreSQL) each drives some runs.";
    const GRPC: &'static [&'static str] = &[
        "kubeflow.pipelines.backend.api.v2beta1.ExperimentService",
        "kubeflow.pipelines.backend.api.v2beta1.PipelineService",
        "kubeflow.pipelines.backend.api.v2beta1.RecurringRunService",
        "kubeflow.pipelines.backend.api.v2beta1.RunService",
        "ferroflow.pipelines.v1.ScheduleService",
        "ferroflow.pipelines.v1.TaskService",
        "ferroflow.pipelines.v1.UploadService",
    ];
    const MIGRATIONS: &'static [Migration] = store::MIGRATIONS;

    type Config = Config;
    type Flags = Flags;
    type Deps = Deps;
    type Error = StartError;

    async fn start(
        config: &Config,
        common: CommonDeps,
        deps: Deps,
        runner: &mut Runner,
    ) -> Result<Routes, StartError> {
        let root = root(config, &deps)?;
        let zone = Zone::named(&config.time_zone)
            .map_err(|error| StartError::TimeZone(error.to_string()))?;
        let packages = packages(config)?;
        let (ctx, inbox) = context(config, common, deps, (root, zone, packages));
        // Before the service listens: `kfp.Client` creates an experiment called `Default` where there
        // is none, and so finds this one. One that a client made would become the default instead.
        app::experiments::prepare_default(&ctx)
            .await
            .map_err(StartError::Experiments)?;
        // `enter` gives back what this replica drove before a restart. After the supervisor has
        // begun, it would give back what that one has just taken.
        let fence = ctx.ownership.enter().await.map_err(StartError::Runs)?;
        let member = Arc::clone(ctx.ownership.member());
        let heartbeat = member.keep_alive(fence, runner.stop_token());
        runner.spawn(TaskKind::Critical, "heartbeat", heartbeat);
        let actors = ActorFactory {
            ctx: Arc::clone(&ctx),
        };
        let supervisor = Supervisor::new(actors, Arc::clone(&ctx.ownership), inbox);
        let stop = runner.stop_token();
        runner.spawn(TaskKind::Critical, "runs", supervisor.run(stop));
        schedules(&ctx, runner);
        let message_max = ctx.settings.values.message();
        Ok(routes(api::Api { ctx }, message_max))
    }
}

/// Fires what is due, in one replica at a time.
fn schedules(ctx: &Arc<app::Ctx>, runner: &mut Runner) {
    let (ctx, stop) = (Arc::clone(ctx), runner.stop_token());
    let schedules = async move {
        let work = |lead| workers::schedules::fire_while_leading(Arc::clone(&ctx), lead);
        // The replica's id is the holder: after a crash it gets its own lease back at once, without
        // waiting until the lease has run out.
        let (db, holder) = (ctx.db.clone(), ctx.ownership.member().id().to_owned());
        run_as_leader(db, workers::schedules::LEASE, &holder, stop, work).await
    };
    runner.spawn(TaskKind::Critical, "schedules", schedules);
}

/// What fetches packages by URL.
fn packages(config: &Config) -> Result<PackageFetcher, StartError> {
    let networks = app::packages::parse_networks(&config.package_networks);
    networks
        .map(PackageFetcher::new)
        .map_err(StartError::Networks)
}

/// Where artifacts go unless a run says otherwise.
fn root(config: &Config, deps: &Deps) -> Result<String, StartError> {
    let (setting, root) = match config.pipeline_root.as_deref() {
        None => ("artifacts.url", deps.artifacts.as_str()),
        Some(given) => ("pipelines.pipeline_root", given),
    };
    app::root::validate(root, &*deps.runtime, &deps.stores)
        .map_err(|problem| StartError::Root { setting, problem })
}

fn context(
    config: &Config,
    common: CommonDeps,
    deps: Deps,
    (pipeline_root, zone, packages): (String, Zone, PackageFetcher),
) -> (Arc<app::Ctx>, Inbox<Runs>) {
    // The slots are those of the runtime, which all services of this process share: the service that
    // allows most decides how many there are.
    deps.runtime.slots().allow(config.parallel_tasks());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdSource> = Arc::new(RandomIds);
    let member = Member::new(common.db.clone(), Arc::clone(&clock), common.replica);
    let member = Arc::new(member);
    // With 0, runs would be accepted and never driven.
    let active_runs_max = config.active_runs.max(1);
    let (ownership, inbox) = Ownership::new(member, Arc::clone(&ids), active_runs_max);
    let ctx = app::Ctx {
        db: common.db,
        clock,
        ids,
        runtime: deps.runtime,
        contents: Contents::new(deps.stores.clone()),
        stores: deps.stores,
        packages,
        plans: app::plans::PlanCache::default(),
        artifact_ids: app::ArtifactIds::default(),
        ownership: Arc::new(ownership),
        settings: app::Settings {
            pipeline_root,
            caching: config.caching,
            values: common.values,
            zone,
        },
    };
    (Arc::new(ctx), inbox)
}

fn routes(api: api::Api, message_max: usize) -> Routes {
    // tonic decodes at most 4 MiB unless it is told otherwise, and one value alone may
    // be larger (`value_max`).
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
