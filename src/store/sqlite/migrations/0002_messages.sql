-- Where `persist` writes chat messages when no other table is configured. SQLite would store NUL bytes and any
-- size of number without complaint: what another database refuses is refused here too.
CREATE TABLE messages (
    message_id   TEXT    NOT NULL PRIMARY KEY CHECK (instr(CAST(message_id AS BLOB), x'00') = 0),
    conversation TEXT    NOT NULL,
    sender       TEXT    NOT NULL,
    recipient    TEXT    NOT NULL,
    content      TEXT    NOT NULL CHECK (instr(CAST(content AS BLOB), x'00') = 0),
    message_type INT4    NOT NULL CHECK (typeof(message_type) = 'integer'
                                         AND message_type BETWEEN -2147483648 AND 2147483647),
    "timestamp"  BIGINT  NOT NULL CHECK (typeof("timestamp") = 'integer'),
    status       TEXT    NOT NULL DEFAULT 'allow',
    received_at  INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
);
