-- A message is due at once by the clock, too: `finished_at` may be ahead of one that was set back.
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
        NEW.options ->> '$.webhook.host', NEW.options ->> '$.webhook.secret',
        min(NEW.finished_at, CAST(unixepoch('subsec') * 1000000 AS INTEGER)), NEW.options ->> '$.owner'
    );
END;
