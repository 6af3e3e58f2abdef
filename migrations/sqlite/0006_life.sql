-- What further fields of a submission need. Whoever does not use them has NULL here and no row of an index.
ALTER TABLE jobs ADD COLUMN expires_at INTEGER; -- not to be started from then on
ALTER TABLE jobs ADD COLUMN earlier    INTEGER; -- attempts before it was last run again by hand

CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE expires_at IS NOT NULL AND state <> 2;

-- Higher priorities first, but none waits for ever: a level of priority is worth a minute of waiting. That never has to be updated,
-- because all that wait grow older at the same pace. src/job/submission.rs says the same.
DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (queue, due_at - priority * 60000000, id) WHERE state = 1;

-- Requests that came with a key, and what was answered.
CREATE TABLE answers (
    key    TEXT    NOT NULL PRIMARY KEY,
    digest BLOB    NOT NULL, -- SHA-256 of what was sent
    jobs   BLOB    NOT NULL, -- 17 bytes each: the id, and whether it was there before
    until  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX answers_until ON answers (until);

-- The latest job of each kind that is not to be there twice.
CREATE TABLE uniques (
    digest  BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of its workload and parameters
    job     BLOB    NOT NULL,
    at      INTEGER NOT NULL,             -- when it was accepted
    look_at INTEGER NOT NULL              -- when to look whether this is still needed
) WITHOUT ROWID;

CREATE INDEX uniques_look_at ON uniques (look_at);
