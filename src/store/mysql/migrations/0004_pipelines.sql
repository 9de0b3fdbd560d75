-- From which offset on each pipeline has its effects, by the group's place. A worker without a pipeline that has begun
-- does not take the partition: else a deploy under way would leave holes in it.
CREATE TABLE IF NOT EXISTS weir_pipelines (
    group_name   varbinary(1024) NOT NULL,
    topic_id     char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    "partition"  integer         NOT NULL,
    pipeline     varbinary(255)  NOT NULL,
    pool         varbinary(64)   NOT NULL,
    begin_offset bigint          NOT NULL,
    begun_at     bigint          NOT NULL,
    -- How often it has begun: more than once after it was retired and came back.
    runs         integer         NOT NULL DEFAULT 1,
    retired_at   bigint,
    PRIMARY KEY (group_name, topic_id, "partition", pipeline)
) ENGINE = InnoDB;
