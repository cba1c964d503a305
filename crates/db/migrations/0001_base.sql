-- Events that wait for the bus, in the order of each key.
CREATE TABLE outbox (
    id TEXT PRIMARY KEY,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX outbox_in_order ON outbox (key, sequence);
