-- The newest position. Whoever appends locks this row first, so that positions become visible in
-- their order, however many services write.
CREATE TABLE log_head (
    id BIGINT PRIMARY KEY,
    position BIGINT NOT NULL
);
INSERT INTO log_head (id, position) SELECT 1, COALESCE(MAX(position), 0) FROM event_log;
