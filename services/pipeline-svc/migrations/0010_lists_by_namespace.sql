-- Every list is of one namespace: indexes begin with it, so that what others have costs nothing, and
-- counting reads the index alone.
DROP INDEX runs_by_experiment;
DROP INDEX runs_by_state;
DROP INDEX runs_by_storage_state;
DROP INDEX runs_by_name;
DROP INDEX runs_by_finished;
DROP INDEX runs_by_scheduled;
DROP INDEX runs_by_description;
DROP INDEX runs_by_recurring;
DROP INDEX runs_by_pipeline_name;
DROP INDEX runs_by_pipeline;
CREATE INDEX runs_by_id ON runs (namespace, id);
CREATE INDEX runs_by_experiment ON runs (namespace, experiment_id, created_at, id);
CREATE INDEX runs_by_state ON runs (namespace, state, created_at, id);
CREATE INDEX runs_by_storage_state ON runs (namespace, storage_state, created_at, id);
CREATE INDEX runs_by_name ON runs (namespace, display_name, id);
CREATE INDEX runs_by_finished ON runs (namespace, finished_at, id);
CREATE INDEX runs_by_scheduled ON runs (namespace, scheduled_at, id);
CREATE INDEX runs_by_description ON runs (namespace, description, id);
CREATE INDEX runs_by_recurring ON runs (namespace, recurring_run_id, created_at, id);
CREATE INDEX runs_by_pipeline_name ON runs (namespace, pipeline_name, created_at, id);
CREATE INDEX runs_by_pipeline ON runs (namespace, pipeline_id, created_at, id);

DROP INDEX recurring_runs_by_experiment;
DROP INDEX recurring_runs_by_updated;
DROP INDEX recurring_runs_by_name;
DROP INDEX recurring_runs_by_description;
DROP INDEX recurring_runs_by_status;
CREATE INDEX recurring_runs_by_id ON recurring_runs (namespace, id);
CREATE INDEX recurring_runs_by_experiment ON recurring_runs (namespace, experiment_id, created_at, id);
CREATE INDEX recurring_runs_by_updated ON recurring_runs (namespace, updated_at, id);
CREATE INDEX recurring_runs_by_name ON recurring_runs (namespace, display_name, id);
CREATE INDEX recurring_runs_by_description ON recurring_runs (namespace, description, id);
CREATE INDEX recurring_runs_by_status ON recurring_runs (namespace, status, created_at, id);

DROP INDEX experiments_by_storage_state;
CREATE INDEX experiments_by_id ON experiments (namespace, id);
CREATE INDEX experiments_by_storage_state ON experiments (namespace, storage_state, created_at, id);
