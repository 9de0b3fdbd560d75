-- What operators have asked of a group while it runs: a row a group that anything was ever asked of.
CREATE TABLE weir_control (
    group_name   TEXT    NOT NULL PRIMARY KEY,
    pool         TEXT    NOT NULL,
    paused_at    INTEGER,
    -- A pause without one lasts until it is ended.
    paused_until INTEGER,
    paused_by    TEXT,
    pause_reason TEXT,
    -- In place of the configured one: '5000/s', or 'none'. NULL: as configured.
    rate         TEXT,
    rate_at      INTEGER
) WITHOUT ROWID;

-- Every change of it.
CREATE TABLE weir_control_log (
    id         INTEGER PRIMARY KEY,
    changed_at INTEGER NOT NULL,
    group_name TEXT    NOT NULL,
    pool       TEXT    NOT NULL,
    what       TEXT    NOT NULL CHECK (what IN ('pause', 'resume', 'rate')),
    from_state TEXT    NOT NULL,
    to_state   TEXT    NOT NULL,
    reason     TEXT,
    changed_by TEXT    NOT NULL
);
