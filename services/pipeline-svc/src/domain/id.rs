//! What the objects of pipelines are told apart by.

use ferroflow_types::id;

id!(
    /// A named pipeline definition.
    PipelineId, "pipeline"
);
id!(
    /// One immutable upload of a pipeline.
    PipelineVersionId, "pipeline version"
);
id!(
    /// A folder of runs (not Katib's experiment).
    ExperimentId, "experiment"
);
id!(
    /// A schedule that creates runs.
    RecurringRunId, "recurring run"
);
