-- Moves of the ledger by `weir seek`. What lies between a lower from_offset and a higher to_offset was skipped on purpose.
CREATE TABLE IF NOT EXISTS weir_seeks (
    id          bigint          NOT NULL AUTO_INCREMENT PRIMARY KEY,
    moved_at    bigint          NOT NULL,
    group_name  varbinary(1024) NOT NULL,
    topic       varbinary(255)  NOT NULL,
    topic_id    char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    "partition" integer         NOT NULL,
    from_offset bigint          NOT NULL,
    to_offset   bigint          NOT NULL,
    moved_by    text CHARACTER SET utf8mb4 NOT NULL,
    KEY weir_seeks_place (group_name, topic_id, "partition")
) ENGINE = InnoDB;
