-- Entries that share a text (a name, a state) are listed in the order of their creation, so that one
-- index of a text serves both who sorts by it and who filters by it.
DROP INDEX runs_by_name;
DROP INDEX runs_by_description;
CREATE INDEX runs_by_name ON runs (namespace, display_name, created_at, id);
CREATE INDEX runs_by_description ON runs (namespace, description, created_at, id);

DROP INDEX recurring_runs_by_name;
DROP INDEX recurring_runs_by_description;
CREATE INDEX recurring_runs_by_name ON recurring_runs (namespace, display_name, created_at, id);
CREATE INDEX recurring_runs_by_description ON recurring_runs (namespace, description, created_at, id);

DROP INDEX experiments_by_description;
CREATE INDEX experiments_by_description ON experiments (namespace, description, created_at, id);

DROP INDEX pipelines_by_display_name;
DROP INDEX pipelines_by_description;
CREATE INDEX pipelines_by_id ON pipelines (namespace, id);
CREATE INDEX pipelines_by_display_name ON pipelines (namespace, display_name, created_at, id);
CREATE INDEX pipelines_by_description ON pipelines (namespace, description, created_at, id);

DROP INDEX versions_by_display_name;
DROP INDEX versions_by_description;
CREATE INDEX versions_by_id ON pipeline_versions (pipeline_id, id);
CREATE INDEX versions_by_status ON pipeline_versions (pipeline_id, status, created_at, id);
CREATE INDEX versions_by_display_name ON pipeline_versions (pipeline_id, display_name, created_at, id);
CREATE INDEX versions_by_description ON pipeline_versions (pipeline_id, description, created_at, id);
