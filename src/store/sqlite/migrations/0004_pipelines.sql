-- From which offset on each pipeline has its effects, by the group's place. A worker without a pipeline that has begun
-- does not take the partition: else a deploy under way would leave holes in it.
CREATE TABLE weir_pipelines (
    group_name   TEXT    NOT NULL,
    topic_id     TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    pipeline     TEXT    NOT NULL,
    pool         TEXT    NOT NULL,
    begin_offset INTEGER NOT NULL,
    begun_at     INTEGER NOT NULL,
    -- How often it has begun: more than once after it was retired and came back.
    runs         INTEGER NOT NULL DEFAULT 1,
    retired_at   INTEGER,
    PRIMARY KEY (group_name, topic_id, partition, pipeline)
) WITHOUT ROWID;
