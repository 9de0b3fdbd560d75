-- Where `persist` writes chat messages when no other table is configured.
CREATE TABLE messages (
    message_id   text        PRIMARY KEY,
    conversation text        NOT NULL,
    sender       text        NOT NULL,
    recipient    text        NOT NULL,
    content      text        NOT NULL,
    message_type integer     NOT NULL,
    "timestamp"  bigint      NOT NULL,
    status       text        NOT NULL DEFAULT 'allow',
    received_at  timestamptz NOT NULL DEFAULT now()
);
