-- Schedules that create runs.
CREATE TABLE recurring_runs (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    experiment_id TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- A pipeline without a version follows its newest one, and then there is no digest.
    pipeline_id TEXT,
    pipeline_version_id TEXT,
    spec_digest TEXT NOT NULL,
    parameters TEXT NOT NULL,
    pipeline_root TEXT NOT NULL,
    service_account TEXT NOT NULL,
    -- CRON, PERIODIC or ONCE, and what belongs to it.
    trigger_kind TEXT NOT NULL,
    cron TEXT NOT NULL,
    interval_s BIGINT NOT NULL,
    start_at BIGINT,
    end_at BIGINT,
    max_concurrency BIGINT NOT NULL,
    no_catchup BIGINT NOT NULL,
    -- ENABLED or DISABLED.
    status TEXT NOT NULL,
    error_code BIGINT NOT NULL,
    error_message TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- All due times up to here are dealt with; never goes back.
    cursor_at BIGINT NOT NULL,
    -- How many runs were made.
    fired BIGINT NOT NULL,
    -- The first due time after the cursor, by the zone data of who wrote it.
    next_due_at BIGINT,
    event_sequence BIGINT NOT NULL
);
CREATE INDEX recurring_runs_by_created ON recurring_runs (namespace, created_at, id);
CREATE INDEX recurring_runs_by_experiment ON recurring_runs (experiment_id, created_at, id);
CREATE INDEX recurring_runs_by_updated ON recurring_runs (updated_at, id);
CREATE INDEX recurring_runs_by_name ON recurring_runs (display_name, id);
CREATE INDEX recurring_runs_by_description ON recurring_runs (description, id);
CREATE INDEX recurring_runs_by_status ON recurring_runs (status, created_at, id);
CREATE INDEX recurring_runs_due ON recurring_runs (next_due_at, id) WHERE status = 'ENABLED';

-- Runs under way by their schedule: as large as what is under way, however many runs are kept.
CREATE INDEX runs_under_way_by_recurring ON runs (recurring_run_id) WHERE finished_at = 0;
