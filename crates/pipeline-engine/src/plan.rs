//! A pipeline, checked: every reference resolved, every expression parsed.
//!
//! Built once per upload from the compiled specification (see `ir`), shared by all runs of
//! it, never changed. Tasks and components are referred to by index, so the engine neither looks
//! up nor copies names.

pub(crate) mod build;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::expr::Expr;
use crate::task_config::Passthroughs;

/// The place of a component in [`Plan::components`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentIx(pub u32);

/// The place of a task in [`Dag::tasks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskSpecIx(pub u32);

/// A whole pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// `pipelineInfo.name`.
    pub name: String,
    /// `pipelineInfo.displayName`, empty when not given.
    pub display_name: String,
    /// `pipelineInfo.description`, empty when not given.
    pub description: String,
    /// Every component that the pipeline uses, the root included.
    pub components: Vec<Component>,
    /// The component that a run executes.
    pub root: ComponentIx,
    /// `defaultPipelineRoot`, where artifacts go unless the run says otherwise.
    pub default_pipeline_root: Option<String>,
    /// How long a run may take, `pipelineConfig.activeDeadlineSeconds`.
    pub run_timeout: Option<Duration>,
    /// The folder that tasks share, `pipelineConfig.workspace`.
    pub workspace: Option<WorkspaceDecl>,
}

/// A folder that the tasks of a run share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceDecl {
    /// A Kubernetes quantity.
    pub size: String,
    /// `kubernetes.pvcSpecPatch.accessModes`.
    pub access_modes: Vec<String>,
    /// `kubernetes.pvcSpecPatch.storageClassName`.
    pub storage_class: Option<String>,
}

/// A reusable unit: its interface and what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// Its key in `components`, `root` for the root.
    pub name: String,
    /// Parameters that it takes.
    pub parameters: BTreeMap<String, ParameterInputDecl>,
    /// Artifacts that it takes.
    pub artifacts: BTreeMap<String, ArtifactInputDecl>,
    /// Parameters that it gives.
    pub output_parameters: BTreeMap<String, ParameterType>,
    /// Artifacts that it gives.
    pub output_artifacts: BTreeMap<String, ArtifactOutputDecl>,
    /// Which parts of its configuration a `TASK_CONFIG` parameter gets.
    pub(crate) passthroughs: Passthroughs,
    /// What it does.
    pub body: Body,
}

impl Component {
    /// Parameters of type `TASK_CONFIG`, which are given for each attempt what its task asks for.
    pub(crate) fn config_parameters(&self) -> impl Iterator<Item = &String> {
        self.parameters
            .iter()
            .filter(|(_, decl)| decl.kind == ParameterType::TaskConfig)
            .map(|(name, _)| name)
    }
}

/// What a component does.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Runs tasks of its own.
    Dag(Dag),
    /// Runs a command.
    Container(Box<Container>),
    /// Registers an artifact that exists already.
    Importer(Box<Importer>),
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterType {
    /// `NUMBER_DOUBLE`
    Double,
    /// `NUMBER_INTEGER`
    Integer,
    /// `STRING`
    String,
    /// `BOOLEAN`
    Boolean,
    /// `LIST`
    List,
    /// `STRUCT`
    Struct,
    /// `TASK_FINAL_STATUS`, filled in by the engine.
    TaskFinalStatus,
    /// `TASK_CONFIG`, filled in for each attempt.
    TaskConfig,
}

/// A parameter that a component takes.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterInputDecl {
    /// Its type.
    pub kind: ParameterType,
    /// Its value when none is given. Whole doubles are already integers.
    pub default: Option<Value>,
    /// Whether it may be left out. True also when there is a default.
    pub(crate) optional: bool,
    /// The only values allowed; empty for any.
    pub(crate) literals: Vec<Value>,
}

/// The type of an artifact: `system.Model` and such.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ArtifactType {
    /// `schemaTitle`, or the text of `instanceSchema` or `schemaUri`.
    pub schema_title: String,
    /// `schemaVersion`.
    pub schema_version: String,
}

/// An artifact that a component takes.
#[derive(Debug, Clone, PartialEq)]
pub struct ArtifactInputDecl {
    /// Its declared type.
    pub kind: ArtifactType,
    /// Whether it is a list of artifacts.
    pub list: bool,
    /// Whether it may be left out.
    pub(crate) optional: bool,
}

/// An artifact that a component gives.
#[derive(Debug, Clone, PartialEq)]
pub struct ArtifactOutputDecl {
    /// Its type.
    pub kind: ArtifactType,
    /// Whether it is a list of artifacts.
    pub list: bool,
    /// Metadata that it always has.
    pub metadata: Map<String, Value>,
}

/// Tasks and the edges between them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dag {
    /// The tasks, ordered by key. Edges have no cycle.
    pub tasks: Vec<TaskSpec>,
    /// Output parameters: where each comes from.
    pub output_parameters: BTreeMap<String, Vec<OutputSelector>>,
    /// Output artifacts: where each comes from.
    pub output_artifacts: BTreeMap<String, Vec<OutputSelector>>,
}

/// One candidate for an output of a DAG; the first whose task succeeded is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSelector {
    /// The task that may have made it.
    pub task: TaskSpecIx,
    /// Its name among the task's outputs.
    pub output: String,
}

/// The specification of a task: a component used in a DAG.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    /// Its key in `tasks`, unique in the DAG.
    pub key: String,
    /// `taskInfo.name`, else the key.
    pub display_name: String,
    /// What it runs.
    pub component: ComponentIx,
    /// Where each parameter comes from.
    pub parameters: BTreeMap<String, ParameterInput>,
    /// Where each artifact comes from.
    pub artifacts: BTreeMap<String, ArtifactSource>,
    /// The tasks that it waits for: `dependentTasks` and every producer of an input. Sorted.
    pub upstream: Vec<TaskSpecIx>,
    /// The tasks that wait for it. Sorted.
    pub(crate) downstream: Vec<TaskSpecIx>,
    /// When it starts.
    pub(crate) strategy: TriggerStrategy,
    /// What must hold for it to start.
    pub(crate) condition: Option<Expr>,
    /// Whether it runs once per item.
    pub iterator: Option<LoopSpec>,
    /// What happens when it fails.
    pub(crate) retry: Option<RetryPolicy>,
    /// Whether its result may be reused.
    pub(crate) cache: CachePolicy,
}

impl TaskSpec {
    /// Whether it starts only where a condition of its own holds.
    pub fn is_conditional(&self) -> bool {
        self.condition.is_some()
    }
}

/// When a task may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TriggerStrategy {
    /// Every upstream task succeeded.
    AllSucceeded,
    /// Every upstream task ended, in whatever way.
    AllCompleted,
}

/// A parameter of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterInput {
    /// Where the value comes from.
    pub source: ParameterSource,
    /// `parameterExpressionSelector`: picks a part of the value.
    pub(crate) selector: Option<Expr>,
}

/// Where a parameter comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ParameterSource {
    /// Written in the pipeline; may hold placeholders. Whole doubles are already integers.
    Constant(Value),
    /// An input of the DAG that the task is in.
    Parent(String),
    /// An output of a sibling.
    Task {
        /// The sibling.
        task: TaskSpecIx,
        /// Its output parameter.
        output: String,
    },
    /// How a sibling ended.
    FinalStatus(TaskSpecIx),
}

/// Where an artifact comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactSource {
    /// An input of the DAG that the task is in.
    Parent(String),
    /// An output of a sibling.
    Task {
        /// The sibling.
        task: TaskSpecIx,
        /// Its output artifact.
        output: String,
    },
}

/// `ParallelFor`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoopSpec {
    /// What is iterated over.
    pub items: LoopItems,
    /// The input of the component that gets the item.
    pub(crate) item_input: String,
    /// How many iterations of this loop run at once; `None` for no limit.
    pub(crate) parallelism: Option<NonZeroU32>,
}

/// What a loop iterates over.
#[derive(Debug, Clone, PartialEq)]
pub enum LoopItems {
    /// Items written in the pipeline; may hold placeholders.
    Raw(Vec<Value>),
    /// An input parameter of the task: a list, or text that is a JSON list.
    Parameter(String),
    /// An input artifact list of the task.
    Artifact(String),
}

/// Attempts after the first one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RetryPolicy {
    /// How many attempts may follow the first.
    pub(crate) max_retries: u32,
    /// The wait before the first retry.
    pub(crate) backoff: Duration,
    /// Each wait is this many times the one before.
    pub(crate) factor: f64,
    /// No wait is longer than this.
    pub(crate) backoff_max: Duration,
}

/// Whether a task's result may be taken from an earlier run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CachePolicy {
    /// `cachingOptions.enableCache`.
    pub enabled: bool,
    /// `cachingOptions.cacheKey`, which replaces the computed fingerprint.
    pub key: Option<String>,
}

/// A command in an image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Container {
    /// The key of the executor in `deploymentSpec.executors`.
    pub(crate) executor: String,
    /// The image; may hold placeholders.
    pub image: String,
    /// Its entry point; may hold placeholders.
    pub command: Vec<String>,
    /// The arguments; may hold placeholders.
    pub(crate) args: Vec<String>,
    /// Environment variables in order; a later one of the same name wins.
    pub env: Vec<(String, String)>,
    /// What it needs.
    pub resources: ResourceSpec,
    /// The executor's `KubernetesExecutorConfig` as canonical JSON, empty when there is none.
    pub platform: Map<String, Value>,
}

/// Requests and limits as written: Kubernetes quantities, possibly placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceSpec {
    /// For example `500m`.
    pub cpu_limit: Option<String>,
    /// For example `2Gi`.
    pub memory_limit: Option<String>,
    /// For example `250m`.
    pub cpu_request: Option<String>,
    /// For example `1Gi`.
    pub memory_request: Option<String>,
    /// Type and count, for example `nvidia.com/gpu` and `1`.
    pub accelerator: Option<(String, String)>,
}

/// An artifact that exists already.
#[derive(Debug, Clone, PartialEq)]
pub struct Importer {
    /// Where it is.
    pub uri: ImporterUri,
    /// Its type.
    pub kind: ArtifactType,
    /// Its metadata; keys and values may hold placeholders.
    pub metadata: Map<String, Value>,
    /// Whether a new artifact is made even if the same one is known.
    pub reimport: bool,
    /// Whether its content is copied to the run's workspace.
    pub download_to_workspace: bool,
}

/// Where an importer's URI comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImporterUri {
    /// Written in the pipeline.
    Constant(String),
    /// An input parameter of the task.
    Parameter(String),
}

impl Plan {
    /// The component at `ix`.
    pub fn component(&self, ix: ComponentIx) -> &Component {
        &self.components[ix.0 as usize]
    }
}

impl Dag {
    /// The task at `ix`.
    pub fn task(&self, ix: TaskSpecIx) -> &TaskSpec {
        &self.tasks[ix.0 as usize]
    }
}
