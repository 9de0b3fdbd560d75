-- From which offset on each pipeline has its effects, by the group's place. A worker without a pipeline that has begun
-- does not take the partition: else a deploy under way would leave holes in it.
CREATE TABLE weir_pipelines (
    group_name   text        NOT NULL,
    topic_id     uuid        NOT NULL,
    partition    integer     NOT NULL,
    pipeline     text        NOT NULL,
    pool         text        NOT NULL,
    begin_offset bigint      NOT NULL,
    begun_at     timestamptz NOT NULL DEFAULT now(),
    -- How often it has begun: more than once after it was retired and came back.
    runs         integer     NOT NULL DEFAULT 1,
    retired_at   timestamptz,
    PRIMARY KEY (group_name, topic_id, partition, pipeline)
);
