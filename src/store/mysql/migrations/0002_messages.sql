-- Where `persist` writes chat messages when no other table is configured. The key's collation neither folds case nor
-- passes over trailing spaces: two ids are one only if their bytes are. NUL would be kept without complaint: what another
-- database refuses is refused here too.
CREATE TABLE IF NOT EXISTS messages (
    message_id   varchar(512) CHARACTER SET utf8mb4 COLLATE {bytewise} NOT NULL PRIMARY KEY
                 CHECK (instr(message_id, x'00') = 0),
    conversation mediumtext   CHARACTER SET utf8mb4 NOT NULL,
    sender       mediumtext   CHARACTER SET utf8mb4 NOT NULL,
    recipient    mediumtext   CHARACTER SET utf8mb4 NOT NULL,
    content      longtext     CHARACTER SET utf8mb4 NOT NULL CHECK (instr(content, x'00') = 0),
    message_type integer      NOT NULL,
    "timestamp"  bigint       NOT NULL,
    status       varchar(16)  CHARACTER SET utf8mb4 NOT NULL DEFAULT 'allow',
    received_at  timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
) ENGINE = InnoDB;
