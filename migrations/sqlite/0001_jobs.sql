-- Unfinished jobs and results are kept apart. A job moves from `jobs` to `results` once, in one transaction: the part that is
-- claimed from stays small whatever the history, and the primary key of `results` leaves room for just one result an id.
--
-- Small enumerations are integers; src/store/sqlite/codes.rs says which. Times are microseconds since the Unix epoch.

CREATE TABLE jobs (
    id          BLOB    NOT NULL PRIMARY KEY, -- UUIDv7, 16 bytes: sorts by acceptance
    state       INTEGER NOT NULL,             -- 0 scheduled, 1 queued, 2 running
    queue       INTEGER NOT NULL,
    rule        INTEGER NOT NULL,
    bound       INTEGER NOT NULL,
    choice      INTEGER NOT NULL,
    type        TEXT    NOT NULL,             -- the workload's name
    workload    TEXT    NOT NULL,             -- the whole JSON object
    priority    INTEGER NOT NULL,
    options     TEXT,                         -- JSON of what is not as it is by default; NULL for nothing
    accepted_at INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,             -- since when it may run
    attempt     INTEGER NOT NULL DEFAULT 0,
    losses      INTEGER NOT NULL DEFAULT 0,
    token       INTEGER,                      -- of the latest claim
    claimed_at  INTEGER,
    stopping    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE INDEX jobs_queued ON jobs (queue, priority DESC, id) WHERE state = 1;
CREATE INDEX jobs_scheduled ON jobs (due_at) WHERE state = 0;

CREATE TABLE results (
    id          BLOB    NOT NULL PRIMARY KEY,
    ending      INTEGER NOT NULL,
    queue       INTEGER NOT NULL,
    rule        INTEGER NOT NULL,
    bound       INTEGER NOT NULL,
    choice      INTEGER NOT NULL,
    type        TEXT    NOT NULL,
    workload    TEXT    NOT NULL,
    priority    INTEGER NOT NULL,
    options     TEXT,
    accepted_at INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    losses      INTEGER NOT NULL,
    started_at  INTEGER,
    finished_at INTEGER NOT NULL,
    output      TEXT,                         -- JSON; NULL if it failed
    error       TEXT,                         -- JSON; NULL if it succeeded
    timing      TEXT                          -- JSON array of its figures; NULL if nothing was measured
) WITHOUT ROWID;

CREATE INDEX results_type ON results (type, id);
-- Not those of the event loop (0), which come by the ten thousand a second and are found without it.
CREATE INDEX results_queue ON results (queue, id) WHERE queue <> 0;
-- Nor those that wait.
CREATE INDEX results_cpu ON results (id) WHERE bound = 1;
CREATE INDEX results_unsuccessful ON results (ending, id) WHERE ending <> 0;

-- Labels, by which lists are filtered; of unfinished and of finished jobs alike.
CREATE TABLE tags (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    id    BLOB NOT NULL,
    PRIMARY KEY (key, value, id)
) WITHOUT ROWID;

-- Counts and sketches of the results, but for those in `counted`.
CREATE TABLE rollups (
    type     TEXT    NOT NULL,
    bound    INTEGER NOT NULL,
    executor INTEGER NOT NULL,
    ending   INTEGER NOT NULL,
    sketches BLOB    NOT NULL,
    PRIMARY KEY (type, bound, executor, ending)
) WITHOUT ROWID;

-- Results that the rollups do not hold yet: a row for each transaction, gone when the rollups are written.
CREATE TABLE counted (
    n       INTEGER NOT NULL PRIMARY KEY,
    results TEXT    NOT NULL              -- JSON; src/store/sqlite/rollups.rs says which
);

-- How often a server was started on this database: makes the tokens of its claims unlike all earlier ones.
CREATE TABLE server (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    boot INTEGER NOT NULL
);
