-- Dead rows that can be replayed, rows that hold their key back, and deliberate moves. Workers of the previous release
-- write dead rows without the new columns, which then say: not asked for, holds nothing back.
ALTER TABLE weir_dead
    -- The record's own time stamp, milliseconds since 1970.
    ADD COLUMN record_ms      bigint,
    -- Later events of this key on this partition wait behind this row.
    ADD COLUMN holds_key      boolean NOT NULL DEFAULT false,
    -- When the partition's owner is to replay it, who asked, and, once it is asked for no more, what came of it:
    -- rejected again, or stopped behind one of its key that was.
    ADD COLUMN replay_at      timestamptz,
    ADD COLUMN replay_request uuid,
    ADD COLUMN replay_outcome text CHECK (replay_outcome IN ('rejected', 'stopped')),
    DROP CONSTRAINT weir_dead_reason_check,
    ADD CONSTRAINT weir_dead_reason_check
        CHECK (reason IN ('malformed', 'refused', 'when_error', 'too_large', 'handler', 'parked'));
CREATE INDEX weir_dead_replay ON weir_dead (pool, topic, partition, replay_at, "offset") WHERE replay_at IS NOT NULL;
CREATE INDEX weir_dead_request ON weir_dead (replay_request) WHERE replay_request IS NOT NULL;
-- A digest, since a key can be longer than an index takes.
CREATE INDEX weir_dead_keys ON weir_dead (pool, topic, partition, md5(key), "offset") WHERE holds_key;

-- Moves of the ledger by `weir seek`. What lies between a lower from_offset and a higher to_offset was skipped on purpose.
CREATE TABLE weir_seeks (
    moved_at    timestamptz NOT NULL DEFAULT now(),
    group_name  text        NOT NULL,
    topic       text        NOT NULL,
    topic_id    uuid        NOT NULL,
    partition   integer     NOT NULL,
    from_offset bigint      NOT NULL,
    to_offset   bigint      NOT NULL,
    moved_by    text        NOT NULL
);
CREATE INDEX weir_seeks_place ON weir_seeks (group_name, topic_id, partition);
