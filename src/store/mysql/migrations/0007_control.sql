-- What operators have asked of a group while it runs: a row a group that anything was ever asked of.
CREATE TABLE IF NOT EXISTS weir_control (
    group_name   varbinary(1024) NOT NULL PRIMARY KEY,
    pool         varbinary(64)   NOT NULL,
    paused_at    bigint,
    -- A pause without one lasts until it is ended.
    paused_until bigint,
    paused_by    text CHARACTER SET utf8mb4,
    pause_reason text CHARACTER SET utf8mb4,
    -- In place of the configured one: '5000/s', or 'none'. NULL: as configured.
    rate         varchar(32) CHARACTER SET utf8mb4,
    rate_at      bigint
) ENGINE = InnoDB;

-- Every change of it.
CREATE TABLE IF NOT EXISTS weir_control_log (
    id         bigint          NOT NULL AUTO_INCREMENT PRIMARY KEY,
    changed_at bigint          NOT NULL,
    group_name varbinary(1024) NOT NULL,
    pool       varbinary(64)   NOT NULL,
    what       varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL CHECK (what IN ('pause', 'resume', 'rate')),
    from_state text CHARACTER SET utf8mb4 NOT NULL,
    to_state   text CHARACTER SET utf8mb4 NOT NULL,
    reason     text CHARACTER SET utf8mb4,
    changed_by text CHARACTER SET utf8mb4 NOT NULL
) ENGINE = InnoDB;
