-- What happened to jobs, as far as neither `jobs` nor `results` can tell: progress, log lines, and what a later attempt would
-- overwrite. That a job was accepted, that its latest attempt runs and how it ended are not here while their own rows say so.
CREATE TABLE events (
    at      INTEGER NOT NULL PRIMARY KEY, -- when, and the event's id: unlike every other event's, `accepted_at` and the like included
    job     BLOB    NOT NULL,
    attempt INTEGER NOT NULL,
    kind    INTEGER NOT NULL,             -- src/store/sqlite/events.rs says which
    data    TEXT                          -- a line of log as it is; otherwise JSON, or nothing
);

CREATE INDEX events_job ON events (job); -- and by it, `at`
