-- What operators have asked of a group while it runs: a row a group that anything was ever asked of.
CREATE TABLE weir_control (
    group_name   text NOT NULL PRIMARY KEY,
    pool         text NOT NULL,
    paused_at    timestamptz,
    -- A pause without one lasts until it is ended.
    paused_until timestamptz,
    paused_by    text,
    pause_reason text,
    -- In place of the configured one: '5000/s', or 'none'. NULL: as configured.
    rate         text,
    rate_at      timestamptz
);

-- Every change of it.
CREATE TABLE weir_control_log (
    id         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    changed_at timestamptz NOT NULL DEFAULT now(),
    group_name text        NOT NULL,
    pool       text        NOT NULL,
    what       text        NOT NULL CHECK (what IN ('pause', 'resume', 'rate')),
    from_state text        NOT NULL,
    to_state   text        NOT NULL,
    reason     text,
    changed_by text        NOT NULL
);
