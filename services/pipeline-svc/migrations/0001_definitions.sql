-- What runs are made from: specifications, pipelines and their versions, experiments.
CREATE TABLE specs (
    digest TEXT PRIMARY KEY,
    pipeline TEXT NOT NULL,
    platform TEXT
);

CREATE TABLE pipelines (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    event_sequence BIGINT NOT NULL
);
CREATE UNIQUE INDEX pipelines_by_name ON pipelines (namespace, name);
CREATE INDEX pipelines_by_created ON pipelines (namespace, created_at, id);
CREATE INDEX pipelines_by_display_name ON pipelines (namespace, display_name, id);
CREATE INDEX pipelines_by_description ON pipelines (namespace, description, id);

CREATE TABLE pipeline_versions (
    id TEXT PRIMARY KEY,
    pipeline_id TEXT NOT NULL REFERENCES pipelines (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    code_source_url TEXT NOT NULL,
    tags TEXT NOT NULL,
    status TEXT NOT NULL,
    spec_digest TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    event_sequence BIGINT NOT NULL
);
CREATE UNIQUE INDEX versions_by_name ON pipeline_versions (pipeline_id, name);
CREATE INDEX versions_by_created ON pipeline_versions (pipeline_id, created_at, id);
CREATE INDEX versions_by_display_name ON pipeline_versions (pipeline_id, display_name, id);
CREATE INDEX versions_by_description ON pipeline_versions (pipeline_id, description, id);

-- Tags are looked up by key and value.
CREATE TABLE tags (
    owner_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX tags_by_value ON tags (key, value, owner_id);

CREATE TABLE experiments (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    storage_state TEXT NOT NULL,
    is_default BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_run_created_at BIGINT NOT NULL,
    event_sequence BIGINT NOT NULL
);
CREATE UNIQUE INDEX experiments_by_name ON experiments (namespace, display_name);
CREATE INDEX experiments_by_created ON experiments (namespace, created_at, id);
CREATE INDEX experiments_by_last_run ON experiments (namespace, last_run_created_at, id);
CREATE INDEX experiments_by_storage_state ON experiments (storage_state, created_at, id);
CREATE INDEX experiments_by_description ON experiments (namespace, description, id);
