//! The compiled pipeline as it is written: `ml_pipelines.PipelineSpec` in canonical JSON.
//!
//! Passive data, only what the plan is built from. Canonical means: lowerCamelCase names, enums by
//! name, no unknown fields (who reads an upload sees to it). What things mean is `plan::build`'s.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* })*
    };
}

messages! {
    /// The whole pipeline.
    PipelineSpec {
        pipeline_info: PipelineInfo,
        schema_version: String,
        deployment_spec: DeploymentSpec,
        components: BTreeMap<String, ComponentSpec>,
        root: Option<ComponentSpec>,
        default_pipeline_root: String,
    }
    /// What it is called.
    PipelineInfo { name: String, display_name: String, description: String, }
    /// How components are executed.
    DeploymentSpec { executors: BTreeMap<String, ExecutorSpec>, }
    /// A component.
    ComponentSpec {
        input_definitions: InputDefinitions,
        output_definitions: OutputDefinitions,
        dag: Option<DagSpec>,
        executor_label: Option<String>,
        task_config_passthroughs: Vec<Passthrough>,
    }
    /// A part of the task's configuration that the component is told.
    Passthrough { field: String, apply_to_task: bool, }
    /// What it takes.
    InputDefinitions {
        artifacts: BTreeMap<String, ArtifactDefinition>,
        parameters: BTreeMap<String, ParameterDefinition>,
    }
    /// What it gives.
    OutputDefinitions {
        artifacts: BTreeMap<String, ArtifactDefinition>,
        parameters: BTreeMap<String, ParameterDefinition>,
    }
    /// An artifact that goes in or out.
    ArtifactDefinition {
        artifact_type: ArtifactTypeSchema,
        is_artifact_list: bool,
        is_optional: bool,
        metadata: Map<String, Value>,
    }
    /// A parameter that goes in or out; `type` is what old compilers wrote.
    ParameterDefinition {
        r#type: String,
        parameter_type: String,
        default_value: Option<Value>,
        is_optional: bool,
        literals: Vec<Value>,
    }
    /// The type of an artifact.
    ArtifactTypeSchema {
        schema_title: Option<String>,
        schema_uri: Option<String>,
        instance_schema: Option<String>,
        schema_version: String,
    }
    /// Tasks and what comes out of them.
    DagSpec { tasks: BTreeMap<String, TaskSpec>, outputs: DagOutputs, }
    /// What comes out of a DAG.
    DagOutputs {
        artifacts: BTreeMap<String, DagOutputArtifact>,
        parameters: BTreeMap<String, DagOutputParameter>,
    }
    /// An output artifact: the first selector whose task ran.
    DagOutputArtifact { artifact_selectors: Vec<ArtifactSelector>, }
    /// A task's artifact.
    ArtifactSelector { producer_subtask: String, output_artifact_key: String, }
    /// An output parameter.
    DagOutputParameter {
        value_from_parameter: Option<ParameterSelector>,
        value_from_oneof: Option<ParameterSelectors>,
    }
    /// Candidates, the first whose task ran.
    ParameterSelectors { parameter_selectors: Vec<ParameterSelector>, }
    /// A task's parameter.
    ParameterSelector { producer_subtask: String, output_parameter_key: String, }
    /// A task.
    TaskSpec {
        task_info: TaskInfo,
        inputs: TaskInputs,
        dependent_tasks: Vec<String>,
        caching_options: CachingOptions,
        component_ref: ComponentRef,
        trigger_policy: TriggerPolicy,
        artifact_iterator: Option<ArtifactIterator>,
        parameter_iterator: Option<ParameterIterator>,
        retry_policy: Option<RetryPolicySpec>,
        iterator_policy: IteratorPolicy,
    }
    /// What a task is called.
    TaskInfo { name: String, }
    /// Where inputs come from.
    TaskInputs {
        parameters: BTreeMap<String, InputParameter>,
        artifacts: BTreeMap<String, InputArtifact>,
    }
    /// Where a parameter comes from: exactly one, and perhaps a selector.
    InputParameter {
        task_output_parameter: Option<TaskOutputParameter>,
        runtime_value: Option<RuntimeValue>,
        component_input_parameter: Option<String>,
        task_final_status: Option<FinalStatus>,
        parameter_expression_selector: String,
    }
    /// A sibling's output parameter.
    TaskOutputParameter { producer_task: String, output_parameter_key: String, }
    /// How a sibling ended.
    FinalStatus { producer_task: String, }
    /// A constant, or the name of a parameter.
    RuntimeValue {
        constant: Option<Value>,
        constant_value: Option<Map<String, Value>>,
        runtime_parameter: Option<String>,
    }
    /// Where an artifact comes from: exactly one.
    InputArtifact {
        task_output_artifact: Option<TaskOutputArtifact>,
        component_input_artifact: Option<String>,
    }
    /// A sibling's output artifact.
    TaskOutputArtifact { producer_task: String, output_artifact_key: String, }
    /// Whether a result may be reused.
    CachingOptions { enable_cache: bool, cache_key: String, }
    /// Which component.
    ComponentRef { name: String, }
    /// When a task starts.
    TriggerPolicy { condition: String, strategy: String, }
    /// A loop over artifacts.
    ArtifactIterator { items: ArtifactItems, item_input: String, }
    /// Which artifacts.
    ArtifactItems { input_artifact: String, }
    /// A loop over values.
    ParameterIterator { items: ParameterItems, item_input: String, }
    /// Which values.
    ParameterItems { raw: Option<String>, input_parameter: Option<String>, }
    /// Attempts after the first.
    RetryPolicySpec {
        max_retry_count: i64,
        backoff_duration: String,
        backoff_factor: f64,
        backoff_max_duration: String,
    }
    /// How many iterations at once.
    IteratorPolicy { parallelism_limit: i64, }
    /// How a component is executed: exactly one.
    ExecutorSpec {
        container: Option<ContainerSpec>,
        importer: Option<ImporterSpec>,
        resolver: Option<Value>,
        custom_job: Option<Value>,
    }
    /// A command in an image.
    ContainerSpec {
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        resources: ResourcesSpec,
        env: Vec<EnvVar>,
    }
    /// An environment variable.
    EnvVar { name: String, value: String, }
    /// What a command needs; the numbers are what old compilers wrote, memory in gigabytes.
    ResourcesSpec {
        cpu_limit: f64,
        memory_limit: f64,
        cpu_request: f64,
        memory_request: f64,
        resource_cpu_limit: String,
        resource_memory_limit: String,
        resource_cpu_request: String,
        resource_memory_request: String,
        accelerator: Option<Accelerator>,
    }
    /// A device.
    Accelerator {
        r#type: String,
        count: Value,
        resource_type: String,
        resource_count: String,
    }
    /// An artifact that exists already.
    ImporterSpec {
        artifact_uri: RuntimeValue,
        type_schema: ArtifactTypeSchema,
        reimport: bool,
        metadata: Map<String, Value>,
        download_to_workspace: bool,
    }
    /// The platform document.
    PlatformSpec { platforms: BTreeMap<String, SinglePlatform>, }
    /// One platform.
    SinglePlatform { deployment_spec: PlatformDeployment, pipeline_config: PipelineConfig, }
    /// Settings by executor.
    PlatformDeployment { executors: BTreeMap<String, Map<String, Value>>, }
    /// Settings of the whole pipeline.
    PipelineConfig { workspace: Option<Value>, active_deadline_seconds: i64, }
}
