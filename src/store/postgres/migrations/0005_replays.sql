-- Ids that took effect when their dead row was replayed: later than their place in Kafka says. A row a replay.
CREATE TABLE weir_replayed (
    pool        text        NOT NULL,
    type        text        NOT NULL,
    event_id    text        NOT NULL,
    replayed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool, type, event_id)
);
