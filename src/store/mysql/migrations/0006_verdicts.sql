-- What moderation flagged or hid. A row is the truth of its message, whether or not the message has a row of its own yet;
-- published_at says whether readers were told by a status event.
CREATE TABLE IF NOT EXISTS weir_verdicts (
    event_id     varbinary(512) NOT NULL,
    pool         varbinary(64)  NOT NULL,
    pipeline     varbinary(255) NOT NULL,
    verdict      varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL CHECK (verdict IN ('flag', 'hide')),
    -- The list and line, the rule, or the classifier. Nothing of the message.
    reason       text CHARACTER SET utf8mb4 NOT NULL,
    conversation mediumtext CHARACTER SET utf8mb4,
    topic_id     char(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    "partition"  integer        NOT NULL,
    "key"        longblob,
    decided_at   bigint         NOT NULL,
    published_at bigint,
    PRIMARY KEY (event_id, pool, pipeline),
    KEY weir_verdicts_unpublished (pool, published_at, decided_at)
) ENGINE = InnoDB;

-- What readers may see: by the row's own status, and by any verdict that another pool has reached.
CREATE OR REPLACE VIEW readable_messages AS
    SELECT m.message_id, m.conversation, m.sender, m.recipient, m.content, m.message_type, m."timestamp", m.status,
           m.received_at
      FROM messages AS m
     WHERE m.status <> 'hide'
       AND NOT EXISTS (SELECT 1 FROM weir_verdicts AS v
                        WHERE v.event_id = CAST(m.message_id AS BINARY) AND v.verdict = 'hide');
