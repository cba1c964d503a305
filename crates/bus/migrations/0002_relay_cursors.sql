-- How far a relay to elsewhere has come in the log.
CREATE TABLE relay_cursors (
    name TEXT PRIMARY KEY,
    position BIGINT NOT NULL
);
