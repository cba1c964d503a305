-- Which replica drives a run: its id, empty for none. The fence rises with every change of the
-- driver, and whoever writes what a driver decided checks it in the same transaction.
ALTER TABLE runs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN fence BIGINT NOT NULL DEFAULT 0;
-- Runs that have not ended, by driver: as large as what is under way, however many runs are kept.
CREATE INDEX runs_by_owner ON runs (owner, created_at, id) WHERE finished_at = 0;

-- What the driver of a run is asked to do by those who do not drive it.
CREATE TABLE run_requests (
    id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    request TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- 0 until it is answered.
    answered_at BIGINT NOT NULL,
    -- Empty until then.
    answer TEXT NOT NULL
);
CREATE INDEX run_requests_in_order ON run_requests (answered_at, created_at, id);
