-- Runs without an experiment go into the default one. One that a client created under its name is
-- taken for it: otherwise the name would be taken for ever.
UPDATE experiments SET is_default = 1 WHERE display_name = 'Default' AND NOT EXISTS (
    SELECT 1 FROM experiments AS others
    WHERE others.namespace = experiments.namespace AND others.is_default = 1
);
CREATE UNIQUE INDEX experiments_default ON experiments (namespace) WHERE is_default = 1;

-- Where a version was fetched from; empty for an upload.
ALTER TABLE pipeline_versions ADD COLUMN package_url TEXT NOT NULL DEFAULT '';
