-- Ids that took effect when their dead row was replayed: later than their place in Kafka says. A row a replay.
CREATE TABLE IF NOT EXISTS weir_replayed (
    pool        varbinary(64)  NOT NULL,
    type        varbinary(512) NOT NULL,
    event_id    varbinary(512) NOT NULL,
    replayed_at bigint         NOT NULL,
    PRIMARY KEY (pool, event_id, type)
) ENGINE = InnoDB;
