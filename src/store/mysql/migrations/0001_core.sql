-- The position of each group on each partition. It commits together with the effects, so that a batch is
-- either wholly there and passed, or not at all. MariaDB and MySQL end a transaction with each of these statements, so
-- every step can be run again. Names, types and ids are bytes: text would be compared as its collation sees fit. Topic
-- ids and tokens are UUIDs in their hyphenated form; points in time are milliseconds since 1970.
CREATE TABLE IF NOT EXISTS weir_ledger (
    group_name  varbinary(1024) NOT NULL,
    topic_id    char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    "partition" integer         NOT NULL,
    topic       varbinary(255)  NOT NULL,
    owner       char(36) CHARACTER SET ascii COLLATE ascii_bin,
    epoch       bigint          NOT NULL DEFAULT 0,
    next_offset bigint          NOT NULL,
    updated_at  bigint          NOT NULL,
    PRIMARY KEY (group_name, topic_id, "partition")
) ENGINE = InnoDB;

-- Rejected events, one row an event and pool. Keys, values and headers are bytes: text could be refused again.
CREATE TABLE IF NOT EXISTS weir_dead (
    pool           varbinary(64)  NOT NULL,
    -- Part of the identity where ids are claimed by type (weir_seen); else, and where it could not be read, empty.
    type           varbinary(512) NOT NULL,
    event_id       varbinary(512) NOT NULL,
    pipeline       varbinary(255) NOT NULL,
    reason         varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
                   CHECK (reason IN ('malformed', 'refused', 'when_error', 'too_large', 'handler', 'parked')),
    message        mediumtext CHARACTER SET utf8mb4 NOT NULL,
    topic          varbinary(255) NOT NULL,
    topic_id       char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    "partition"    integer        NOT NULL,
    "offset"       bigint         NOT NULL,
    "key"          longblob,
    value          longblob,
    headers        longblob,
    attempts       integer        NOT NULL DEFAULT 1,
    created_at     bigint         NOT NULL,
    published_at   bigint,
    -- The record's own time stamp.
    record_ms      bigint,
    -- Later events of this key on this partition wait behind this row.
    holds_key      boolean        NOT NULL DEFAULT false,
    -- When the partition's owner is to replay it, who asked, and, once it is asked for no more, what came of it:
    -- rejected again, or stopped behind one of its key that was.
    replay_at      bigint,
    replay_request char(36) CHARACTER SET ascii COLLATE ascii_bin,
    replay_outcome varchar(16) CHARACTER SET ascii COLLATE ascii_bin CHECK (replay_outcome IN ('rejected', 'stopped')),
    PRIMARY KEY (pool, event_id, type),
    KEY weir_dead_unpublished (pool, published_at, created_at),
    KEY weir_dead_replay (pool, replay_at, topic, "partition"),
    KEY weir_dead_request (replay_request),
    KEY weir_dead_keys (pool, holds_key, topic, "partition", "key"(64), "offset")
) ENGINE = InnoDB;

-- The ids of pools in which no pipeline's own table claims them.
CREATE TABLE IF NOT EXISTS weir_seen (
    pool     varbinary(64)  NOT NULL,
    type     varbinary(512) NOT NULL,
    event_id varbinary(512) NOT NULL,
    seen_at  bigint         NOT NULL,
    PRIMARY KEY (pool, event_id, type),
    KEY weir_seen_age (pool, seen_at)
) ENGINE = InnoDB;

-- Counters by minute since 1970 (UTC), sharded by partition so that tasks do not wait for each other's rows.
CREATE TABLE IF NOT EXISTS weir_counts (
    minute    bigint         NOT NULL,
    dimension varbinary(64)  NOT NULL,
    member    varbinary(1024) NOT NULL,
    shard     integer        NOT NULL,
    count     bigint         NOT NULL,
    PRIMARY KEY (minute, dimension, member, shard)
) ENGINE = InnoDB;

CREATE OR REPLACE VIEW message_stats AS
    SELECT TIMESTAMP '1970-01-01 00:00:00' + INTERVAL minute MINUTE AS minute, CONVERT(dimension USING utf8mb4) AS dimension,
           CONVERT(member USING utf8mb4) AS member, CAST(sum(count) AS SIGNED) AS count
      FROM weir_counts WHERE dimension <> 'active_users'
     GROUP BY weir_counts.minute, weir_counts.dimension, weir_counts.member
    UNION ALL
    SELECT TIMESTAMP '1970-01-01 00:00:00' + INTERVAL minute MINUTE, CONVERT(dimension USING utf8mb4), '',
           count(DISTINCT member)
      FROM weir_counts WHERE dimension = 'active_users'
     GROUP BY weir_counts.minute, weir_counts.dimension;
