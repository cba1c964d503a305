-- Runs, their tasks, the artifacts these made, and results that later tasks may reuse.
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    experiment_id TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    storage_state TEXT NOT NULL,
    state TEXT NOT NULL,
    pipeline_id TEXT,
    pipeline_version_id TEXT,
    recurring_run_id TEXT NOT NULL,
    -- A run keeps its specification even when the version is deleted.
    spec_digest TEXT NOT NULL,
    pipeline_name TEXT NOT NULL,
    -- What the client gave, to be echoed, and what it comes to with macros expanded.
    parameters_given TEXT NOT NULL,
    parameters TEXT NOT NULL,
    pipeline_root_given TEXT NOT NULL,
    pipeline_root TEXT NOT NULL,
    service_account TEXT NOT NULL,
    caching BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    scheduled_at BIGINT NOT NULL,
    started_at BIGINT,
    -- 0 until it ends, so that lists can be ordered by it.
    finished_at BIGINT NOT NULL,
    error_code BIGINT NOT NULL,
    error_message TEXT NOT NULL,
    state_history TEXT NOT NULL,
    -- The trace of the request that created it, W3C; empty for none.
    traceparent TEXT NOT NULL,
    -- How many events were told of the run and its tasks.
    event_sequence BIGINT NOT NULL
);
CREATE INDEX runs_by_created ON runs (namespace, created_at, id);
CREATE INDEX runs_by_experiment ON runs (experiment_id, created_at, id);
CREATE INDEX runs_by_state ON runs (state, created_at, id);
CREATE INDEX runs_by_storage_state ON runs (storage_state, created_at, id);
CREATE INDEX runs_by_name ON runs (display_name, id);
CREATE INDEX runs_by_finished ON runs (finished_at, id);
CREATE INDEX runs_by_scheduled ON runs (scheduled_at, id);
CREATE INDEX runs_by_description ON runs (description, id);
CREATE INDEX runs_by_recurring ON runs (recurring_run_id, created_at, id);

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    parent_id TEXT,
    iteration BIGINT,
    state TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    lost BIGINT NOT NULL,
    inputs TEXT NOT NULL,
    outputs TEXT NOT NULL,
    error TEXT,
    cache TEXT,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    retry_at BIGINT,
    history TEXT NOT NULL
);
CREATE INDEX tasks_by_run ON tasks (run_id, path);

CREATE TABLE artifacts (
    id BIGINT PRIMARY KEY,
    namespace TEXT NOT NULL,
    pipeline_name TEXT NOT NULL,
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    name TEXT NOT NULL,
    schema_title TEXT NOT NULL,
    schema_version TEXT NOT NULL,
    uri TEXT NOT NULL,
    metadata TEXT NOT NULL,
    digest TEXT,
    size_bytes BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX artifacts_by_run ON artifacts (run_id, id);
CREATE INDEX artifacts_by_task ON artifacts (task_id, id);
CREATE INDEX artifacts_by_uri ON artifacts (namespace, pipeline_name, uri);

-- Numbers are handed out in blocks, so that making an artifact costs no round trip.
CREATE TABLE number_blocks (
    name TEXT PRIMARY KEY,
    next BIGINT NOT NULL
);

-- The newest result of every fingerprint. It outlives its run, as artifacts do.
CREATE TABLE cached_results (
    namespace TEXT NOT NULL,
    pipeline_name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    outputs TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, pipeline_name, fingerprint)
);
