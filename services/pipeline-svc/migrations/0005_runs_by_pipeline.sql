-- Runs are listed by pipeline: by the name in their specification, or by the stored pipeline.
CREATE INDEX runs_by_pipeline_name ON runs (pipeline_name, created_at, id);
CREATE INDEX runs_by_pipeline ON runs (pipeline_id, created_at, id);
