-- The position of each group on each partition. It commits together with the effects, so that a batch is
-- either wholly there and passed, or not at all. Ids are UUIDs in their hyphenated form; points in time are
-- milliseconds since 1970.
CREATE TABLE weir_ledger (
    group_name  TEXT    NOT NULL,
    topic_id    TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    topic       TEXT    NOT NULL,
    owner       TEXT,
    epoch       INTEGER NOT NULL DEFAULT 0,
    next_offset INTEGER NOT NULL CHECK (typeof(next_offset) = 'integer'),
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic_id, partition)
) WITHOUT ROWID;

-- Rejected events, one row an event and pool. Keys, values and headers are bytes: text could be refused again.
CREATE TABLE weir_dead (
    pool         TEXT    NOT NULL,
    -- Part of the identity where ids are claimed by type (weir_seen); else, and where it could not be read, empty.
    type         TEXT    NOT NULL,
    event_id     TEXT    NOT NULL CHECK (instr(CAST(event_id AS BLOB), x'00') = 0),
    pipeline     TEXT    NOT NULL,
    reason       TEXT    NOT NULL CHECK (reason IN ('malformed', 'refused', 'when_error', 'too_large', 'handler')),
    message      TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    topic_id     TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    "offset"     INTEGER NOT NULL,
    key          BLOB,
    value        BLOB,
    headers      BLOB,
    attempts     INTEGER NOT NULL DEFAULT 1,
    created_at   INTEGER NOT NULL,
    published_at INTEGER,
    PRIMARY KEY (pool, type, event_id)
);
CREATE INDEX weir_dead_unpublished ON weir_dead (pool, created_at) WHERE published_at IS NULL;

-- The ids of pools in which no pipeline's own table claims them.
CREATE TABLE weir_seen (
    pool     TEXT    NOT NULL,
    type     TEXT    NOT NULL,
    event_id TEXT    NOT NULL CHECK (instr(CAST(event_id AS BLOB), x'00') = 0),
    seen_at  INTEGER NOT NULL,
    PRIMARY KEY (pool, type, event_id)
) WITHOUT ROWID;
CREATE INDEX weir_seen_age ON weir_seen (pool, seen_at);

-- Counters by minute since 1970 (UTC), sharded by partition as on every database.
CREATE TABLE weir_counts (
    minute    INTEGER NOT NULL,
    dimension TEXT    NOT NULL,
    member    TEXT    NOT NULL,
    shard     INTEGER NOT NULL,
    count     INTEGER NOT NULL,
    PRIMARY KEY (minute, dimension, member, shard)
) WITHOUT ROWID;

CREATE VIEW message_stats AS
    SELECT strftime('%Y-%m-%dT%H:%M:%SZ', minute * 60, 'unixepoch') AS minute, dimension, member, sum(count) AS count
      FROM weir_counts WHERE dimension <> 'active_users'
     GROUP BY minute, dimension, member
    UNION ALL
    SELECT strftime('%Y-%m-%dT%H:%M:%SZ', minute * 60, 'unixepoch'), dimension, '', count(DISTINCT member)
      FROM weir_counts WHERE dimension = 'active_users'
     GROUP BY minute, dimension;
