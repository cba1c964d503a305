-- The embedded log: positions rise, ids are unique, so an event published twice is kept once.
CREATE TABLE event_log (
    position BIGINT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at BIGINT NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX event_log_by_time ON event_log (at);
