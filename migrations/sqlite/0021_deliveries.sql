-- Whose the job is of which is told: a key that may see its own alone must not go through those of all others.
ALTER TABLE deliveries ADD COLUMN owner INTEGER;
UPDATE deliveries SET owner =
    coalesce((SELECT owner FROM results WHERE id = deliveries.job), (SELECT owner FROM jobs WHERE id = deliveries.job));
CREATE INDEX deliveries_owner ON deliveries (owner, place) WHERE owner IS NOT NULL;

DROP TRIGGER results_tell;
CREATE TRIGGER results_tell AFTER INSERT ON results
WHEN NEW.options IS NOT NULL AND NEW.options -> '$.webhook' IS NOT NULL AND (
    NEW.options -> '$.webhook.events' IS NULL
    OR EXISTS (SELECT 1 FROM json_each(NEW.options, '$.webhook.events') AS wanted WHERE wanted.value =
        CASE NEW.ending WHEN 0 THEN 'succeeded' WHEN 1 THEN 'failed' WHEN 2 THEN 'cancelled' WHEN 3 THEN 'lost' END)
)
BEGIN
    INSERT INTO deliveries (id, job, ending, finished_at, url, host, secret, due_at, owner)
    VALUES (
        'msg_' || lower(hex(randomblob(16))), NEW.id, NEW.ending, NEW.finished_at, NEW.options ->> '$.webhook.url',
        NEW.options ->> '$.webhook.host', NEW.options ->> '$.webhook.secret', NEW.finished_at, NEW.options ->> '$.owner'
    );
END;
