-- The position of each group on each partition. It commits together with the effects, so that a batch is
-- either wholly there and passed, or not at all. A low fill factor and no second index keep its updates HOT.
CREATE TABLE weir_ledger (
    group_name  text        NOT NULL,
    topic_id    uuid        NOT NULL,
    partition   integer     NOT NULL,
    topic       text        NOT NULL,
    owner       uuid,
    epoch       bigint      NOT NULL DEFAULT 0,
    next_offset bigint      NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (group_name, topic_id, partition)
) WITH (fillfactor = 30);

-- Rejected events, one row an event and pool. Keys, values and headers are bytes: text could be refused again.
CREATE TABLE weir_dead (
    pool         text        NOT NULL,
    -- Part of the identity where ids are claimed by type (weir_seen); else, and where it could not be read, empty.
    type         text        NOT NULL,
    event_id     text        NOT NULL,
    pipeline     text        NOT NULL,
    reason       text        NOT NULL CHECK (reason IN ('malformed', 'refused', 'when_error', 'too_large', 'handler')),
    message      text        NOT NULL,
    topic        text        NOT NULL,
    topic_id     uuid        NOT NULL,
    partition    integer     NOT NULL,
    "offset"     bigint      NOT NULL,
    key          bytea,
    value        bytea,
    headers      bytea,
    attempts     integer     NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    -- The transaction that wrote the row: once all that ran beside it have ended, whether the id is live is settled.
    written_in   xid8        NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (pool, type, event_id)
);
CREATE INDEX weir_dead_unpublished ON weir_dead (pool, created_at) WHERE published_at IS NULL;

-- The ids of pools in which no pipeline's own table claims them.
CREATE TABLE weir_seen (
    pool     text        NOT NULL,
    type     text        NOT NULL,
    event_id text        NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pool, type, event_id)
);
CREATE INDEX weir_seen_age ON weir_seen USING brin (seen_at);

-- Counters by minute, sharded by partition so that tasks do not wait for each other's rows.
CREATE TABLE weir_counts (
    minute    timestamptz NOT NULL,
    dimension text        NOT NULL,
    member    text        NOT NULL,
    shard     integer     NOT NULL,
    count     bigint      NOT NULL,
    PRIMARY KEY (minute, dimension, member, shard)
) WITH (fillfactor = 50);

CREATE VIEW message_stats AS
    SELECT minute, dimension, member, sum(count)::bigint AS count
      FROM weir_counts WHERE dimension <> 'active_users'
     GROUP BY minute, dimension, member
    UNION ALL
    SELECT minute, dimension, '' AS member, count(DISTINCT member) AS count
      FROM weir_counts WHERE dimension = 'active_users'
     GROUP BY minute, dimension;
