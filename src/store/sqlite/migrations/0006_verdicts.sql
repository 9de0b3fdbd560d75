-- What moderation flagged or hid. A row is the truth of its message, whether or not the message has a row of its own yet;
-- published_at says whether readers were told by a status event.
CREATE TABLE weir_verdicts (
    event_id     TEXT    NOT NULL CHECK (instr(CAST(event_id AS BLOB), x'00') = 0),
    pool         TEXT    NOT NULL,
    pipeline     TEXT    NOT NULL,
    verdict      TEXT    NOT NULL CHECK (verdict IN ('flag', 'hide')),
    -- The list and line, the rule, or the classifier. Nothing of the message.
    reason       TEXT    NOT NULL,
    conversation TEXT,
    topic_id     TEXT    NOT NULL,
    partition    INTEGER NOT NULL,
    key          BLOB,
    decided_at   INTEGER NOT NULL,
    published_at INTEGER,
    PRIMARY KEY (event_id, pool, pipeline)
) WITHOUT ROWID;
CREATE INDEX weir_verdicts_unpublished ON weir_verdicts (pool, decided_at) WHERE published_at IS NULL;

-- What readers may see: by the row's own status, and by any verdict that another pool has reached.
CREATE VIEW readable_messages AS
    SELECT m.message_id, m.conversation, m.sender, m.recipient, m.content, m.message_type, m."timestamp", m.status,
           m.received_at
      FROM messages AS m
     WHERE m.status <> 'hide'
       AND NOT EXISTS (SELECT 1 FROM weir_verdicts AS v WHERE v.event_id = m.message_id AND v.verdict = 'hide');
