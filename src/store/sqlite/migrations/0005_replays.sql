-- Ids that took effect when their dead row was replayed: later than their place in Kafka says. A row a replay.
CREATE TABLE weir_replayed (
    pool        TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    event_id    TEXT    NOT NULL CHECK (instr(CAST(event_id AS BLOB), x'00') = 0),
    replayed_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
    PRIMARY KEY (pool, type, event_id)
) WITHOUT ROWID;
