-- Events that a consumer has handled; the note is written with the effect.
CREATE TABLE seen_events (
    consumer TEXT NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (consumer, source, id)
);
CREATE INDEX seen_events_by_time ON seen_events (consumer, at);
