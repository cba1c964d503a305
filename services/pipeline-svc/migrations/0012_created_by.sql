-- The subject of the principal that made it; empty for what the platform made by itself, and for what
-- was made before this was kept.
ALTER TABLE pipelines ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE pipeline_versions ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE experiments ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
ALTER TABLE recurring_runs ADD COLUMN created_by TEXT NOT NULL DEFAULT '';
