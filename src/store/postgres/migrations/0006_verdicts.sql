-- What moderation flagged or hid. A row is the truth of its message, whether or not the message has a row of its own yet;
-- published_at says whether readers were told by a status event.
CREATE TABLE weir_verdicts (
    event_id     text        NOT NULL,
    pool         text        NOT NULL,
    pipeline     text        NOT NULL,
    verdict      text        NOT NULL CHECK (verdict IN ('flag', 'hide')),
    -- The list and line, the rule, or the classifier. Nothing of the message.
    reason       text        NOT NULL,
    conversation text,
    topic_id     uuid        NOT NULL,
    partition    integer     NOT NULL,
    key          bytea,
    decided_at   timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    PRIMARY KEY (event_id, pool, pipeline)
);
CREATE INDEX weir_verdicts_unpublished ON weir_verdicts (pool, decided_at) WHERE published_at IS NULL;

-- What readers may see: by the row's own status, and by any verdict that another pool has reached.
CREATE VIEW readable_messages AS
    SELECT m.message_id, m.conversation, m.sender, m.recipient, m.content, m.message_type, m."timestamp", m.status,
           m.received_at
      FROM messages m
     WHERE m.status <> 'hide'
       AND NOT EXISTS (SELECT 1 FROM weir_verdicts v WHERE v.event_id = m.message_id::text AND v.verdict = 'hide');
