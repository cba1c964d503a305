//! Use cases: each opens the transaction, asks the domain, writes state and event together.

pub(crate) mod artifacts;
pub(crate) mod create_run;
pub(crate) mod events;
pub(crate) mod experiments;
pub(crate) mod packages;
pub(crate) mod pipelines;
pub(crate) mod plans;
pub(crate) mod recurring_runs;
pub(crate) mod root;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod spec_file;
pub(crate) mod step;
pub(crate) mod tasks;
pub(crate) mod versions;

use std::sync::Arc;

use ferroflow_artifacts::contents::Contents;
use ferroflow_artifacts::stores::Stores;
use ferroflow_db::Db;
use ferroflow_launcher::{Domain, OwnerKey};
use ferroflow_ownership::Ownership;
use ferroflow_pipeline_engine::engine::RunFacts;
use ferroflow_pipeline_engine::plan::Plan;
use ferroflow_runtime::{EntryPoints, Runtime, Site};
use ferroflow_schedule::Zone;
use ferroflow_types::id::IdSource;
use ferroflow_types::{Clock, Namespace, RunId, Timestamp, ValueLimit};
use tokio::sync::Mutex;

use crate::domain::run::Run;
use crate::store;
use crate::store::ownership::Runs;
use packages::PackageFetcher;
use plans::PlanCache;

/// What use cases and workers work with; it is passed to them as an argument.
pub(crate) struct Ctx {
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) runtime: Arc<dyn Runtime>,
    /// Where artifacts are.
    pub(crate) stores: Stores,
    /// Compares the content of artifacts with what was noted of it.
    pub(crate) contents: Contents,
    /// How compiled pipelines are fetched by URL.
    pub(crate) packages: PackageFetcher,
    pub(crate) plans: PlanCache,
    pub(crate) artifact_ids: ArtifactIds,
    /// Which runs this replica drives, and the way to the drivers of all others.
    pub(crate) ownership: Arc<Ownership<Runs>>,
    pub(crate) settings: Settings,
}

/// Settings of the service that use cases read.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where artifacts go unless a run says otherwise.
    pub(crate) pipeline_root: String,
    /// Whether results may be reused.
    pub(crate) caching: bool,
    /// How large values may be.
    pub(crate) values: ValueLimit,
    /// The zone of cron expressions that name none.
    pub(crate) zone: Zone,
}

impl Ctx {
    /// The time, read once per transaction.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What the engine is told of a run.
    pub(crate) fn facts(&self, run: &Run, plan: &Plan) -> RunFacts {
        let owner = owner(run.id, &run.namespace);
        let workspace = plan
            .workspace
            .as_ref()
            .map(|_| self.runtime.workspace(&owner));
        let capabilities = self.runtime.capabilities();
        RunFacts {
            run: run.id,
            namespace: run.namespace.clone(),
            resource_name: run.resource_name(),
            display_name: run.display_name.clone(),
            parameters: run.parameters.clone(),
            pipeline_root: run.root.clone(),
            created_at: run.created_at,
            values: self.settings.values,
            workspace_path: workspace
                .as_ref()
                .map(|folder| folder.path.display().to_string()),
            workspace_claim: workspace.and_then(|folder| folder.claim),
            caching: run.caching && self.settings.caching,
            kubernetes: capabilities.site == Site::Cluster,
            entry_points: capabilities.entry_points == EntryPoints::OfImages,
        }
    }
}

/// The owner of a run's attempts, as the runtime names it.
pub(crate) fn owner(run: RunId, namespace: &Namespace) -> OwnerKey {
    OwnerKey {
        domain: Domain::PIPELINES,
        namespace: namespace.clone(),
        id: run.uuid(),
    }
}

/// Ids for artifacts, handed out of blocks so that one costs no transaction.
#[derive(Default)]
pub(crate) struct ArtifactIds {
    block: Mutex<std::ops::Range<i64>>,
}

/// Ids that are set aside at once; a restart leaves a gap of at most this many.
const BLOCK_SIZE: i64 = 1000;

impl ArtifactIds {
    /// An id that no other artifact has.
    pub(crate) async fn next(&self, db: &Db) -> Result<i64, ferroflow_types::Error> {
        // Held over the transaction: others wait for this block instead of each
        // taking one of their own.
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        let mut tx = db.begin_write().await?;
        let first = store::artifacts::allocate_ids(&mut tx, BLOCK_SIZE).await?;
        tx.commit().await?;
        // Only after the commit: the database hands out a block again that was rolled back. A caller
        // that goes away just before this line leaves a gap.
        *block = first + 1..first + BLOCK_SIZE;
        Ok(first)
    }
}
