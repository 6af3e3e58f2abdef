-- What is to be told to whom: one row for each end of a job that has a webhook. The trigger sees to it that each way to an end leaves
-- one, in the transaction that records the end; a job without options costs it nothing but a look at that.
CREATE TABLE deliveries (
    place       INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,     -- the message's, at every attempt the same
    job         BLOB    NOT NULL,
    ending      INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    url         TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    secret      TEXT,                        -- NULL for the server's own
    state       INTEGER NOT NULL DEFAULT 0,  -- 0 pending, 1 delivered, 2 failed, 3 gone
    due_at      INTEGER NOT NULL,            -- of the next attempt, while it is pending
    tries       INTEGER NOT NULL DEFAULT 0,  -- attempts since it was made, or was wanted again
    log         TEXT    NOT NULL DEFAULT '[]' -- JSON array of the attempts
);

CREATE INDEX deliveries_job ON deliveries (job);
CREATE INDEX deliveries_state ON deliveries (state, place);
CREATE INDEX deliveries_due ON deliveries (host, due_at) WHERE state = 0;
CREATE INDEX deliveries_url ON deliveries (url) WHERE state = 0;

CREATE TRIGGER results_tell AFTER INSERT ON results
WHEN NEW.options IS NOT NULL AND NEW.options -> '$.webhook' IS NOT NULL AND (
    NEW.options -> '$.webhook.events' IS NULL
    OR EXISTS (SELECT 1 FROM json_each(NEW.options, '$.webhook.events') AS wanted WHERE wanted.value =
        CASE NEW.ending WHEN 0 THEN 'succeeded' WHEN 1 THEN 'failed' WHEN 2 THEN 'cancelled' WHEN 3 THEN 'lost' END)
)
BEGIN
    INSERT INTO deliveries (id, job, ending, finished_at, url, host, secret, due_at)
    VALUES (
        'msg_' || lower(hex(randomblob(16))), NEW.id, NEW.ending, NEW.finished_at, NEW.options ->> '$.webhook.url',
        NEW.options ->> '$.webhook.host', NEW.options ->> '$.webhook.secret', NEW.finished_at
    );
END;
