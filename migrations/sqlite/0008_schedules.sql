-- Timetables that submit jobs. One is due at `next_at`: in one transaction the jobs for all times up to now are accepted, what became
-- of each time is written down, and `next_at` is set behind them.
CREATE TABLE schedules (
    name       TEXT    NOT NULL PRIMARY KEY,
    cron       TEXT    NOT NULL,
    timezone   TEXT    NOT NULL,
    catch_up   INTEGER NOT NULL,
    overlap    INTEGER NOT NULL,
    job        TEXT    NOT NULL, -- the submission, as the client wrote it
    paused     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    next_at    INTEGER           -- NULL while it is paused, or if it is never due again
) WITHOUT ROWID;

CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL;

-- The times at which schedules were due, the latest of each.
CREATE TABLE fires (
    id       INTEGER NOT NULL PRIMARY KEY, -- in the order of the decisions
    schedule TEXT    NOT NULL,
    due_at   INTEGER NOT NULL,
    at       INTEGER NOT NULL,             -- when it was decided upon
    by_hand  INTEGER NOT NULL,
    outcome  INTEGER NOT NULL,             -- 0 submitted, 1 waiting, 2 skipped, 3 failed
    job      BLOB,                         -- of one that was submitted
    skip     INTEGER,                      -- why one was skipped
    error    TEXT                          -- why one failed
);

CREATE INDEX fires_schedule ON fires (schedule, id);
CREATE INDEX fires_waiting ON fires (schedule, id) WHERE outcome = 1;
