-- Dead rows that can be replayed, rows that hold their key back, and deliberate moves. Workers of the previous release
-- write dead rows without the new columns, which then say: not asked for, holds nothing back. SQLite changes no check,
-- so the table is made anew.
CREATE TABLE weir_dead_0003 (
    pool           TEXT    NOT NULL,
    -- Part of the identity where ids are claimed by type (weir_seen); else, and where it could not be read, empty.
    type           TEXT    NOT NULL,
    event_id       TEXT    NOT NULL CHECK (instr(CAST(event_id AS BLOB), x'00') = 0),
    pipeline       TEXT    NOT NULL,
    reason         TEXT    NOT NULL
                   CHECK (reason IN ('malformed', 'refused', 'when_error', 'too_large', 'handler', 'parked')),
    message        TEXT    NOT NULL,
    topic          TEXT    NOT NULL,
    topic_id       TEXT    NOT NULL,
    partition      INTEGER NOT NULL,
    "offset"       INTEGER NOT NULL,
    key            BLOB,
    value          BLOB,
    headers        BLOB,
    attempts       INTEGER NOT NULL DEFAULT 1,
    created_at     INTEGER NOT NULL,
    published_at   INTEGER,
    -- The record's own time stamp.
    record_ms      INTEGER,
    -- Later events of this key on this partition wait behind this row.
    holds_key      INTEGER NOT NULL DEFAULT 0,
    -- When the partition's owner is to replay it, who asked, and, once it is asked for no more, what came of it:
    -- rejected again, or stopped behind one of its key that was.
    replay_at      INTEGER,
    replay_request TEXT,
    replay_outcome TEXT    CHECK (replay_outcome IN ('rejected', 'stopped')),
    PRIMARY KEY (pool, type, event_id)
);
INSERT INTO weir_dead_0003 (pool, type, event_id, pipeline, reason, message, topic, topic_id, partition, "offset", key, value,
                            headers, attempts, created_at, published_at)
    SELECT pool, type, event_id, pipeline, reason, message, topic, topic_id, partition, "offset", key, value, headers,
           attempts, created_at, published_at FROM weir_dead;
DROP TABLE weir_dead;
ALTER TABLE weir_dead_0003 RENAME TO weir_dead;
CREATE INDEX weir_dead_unpublished ON weir_dead (pool, created_at) WHERE published_at IS NULL;
CREATE INDEX weir_dead_replay ON weir_dead (pool, topic, partition, replay_at, "offset") WHERE replay_at IS NOT NULL;
CREATE INDEX weir_dead_request ON weir_dead (replay_request) WHERE replay_request IS NOT NULL;
CREATE INDEX weir_dead_keys ON weir_dead (pool, topic, partition, key, "offset") WHERE holds_key;

-- Moves of the ledger by `weir seek`. What lies between a lower from_offset and a higher to_offset was skipped on purpose.
CREATE TABLE weir_seeks (
    moved_at    INTEGER NOT NULL,
    group_name  TEXT    NOT NULL,
    topic       TEXT    NOT NULL,
    topic_id    TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    from_offset INTEGER NOT NULL,
    to_offset   INTEGER NOT NULL,
    moved_by    TEXT    NOT NULL
);
CREATE INDEX weir_seeks_place ON weir_seeks (group_name, topic_id, partition);
