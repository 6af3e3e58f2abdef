-- Which job comes after which.
CREATE TABLE edges (
    parent BLOB    NOT NULL,
    child  BLOB    NOT NULL,
    rule   INTEGER NOT NULL, -- what becomes of the child if the parent does not succeed; codes.rs says which
    name   TEXT,             -- what their batch called the parent
    open   INTEGER NOT NULL, -- whether the child still waits for the parent
    PRIMARY KEY (parent, child)
) WITHOUT ROWID;

CREATE INDEX edges_child ON edges (child, open); -- and by it, `parent`

-- Jobs that have ended, but whose children have not all heard of it yet: there are too many for one transaction.
CREATE TABLE releases (
    parent BLOB NOT NULL PRIMARY KEY
) WITHOUT ROWID;

-- Whether other jobs may wait for this one: the end of one without children has nothing to look for.
ALTER TABLE jobs ADD COLUMN children INTEGER NOT NULL DEFAULT 0;

-- State 3 is blocked.
CREATE INDEX jobs_blocked ON jobs (id, queue) WHERE state = 3;

-- Jobs that share a limit wait in lanes: one for each queue and pair of keys. State 4 is queued in a lane; NULL is no lane.
ALTER TABLE jobs ADD COLUMN lane TEXT; -- a JSON array of the key of `concurrency` and that of `rate`

CREATE INDEX jobs_lanes ON jobs (queue, lane, due_at - priority * 60000000, id) WHERE state = 4;

-- The lanes in which jobs wait. Those that are open take turns.
CREATE TABLE lanes (
    queue INTEGER NOT NULL,
    lane  TEXT    NOT NULL,
    turn  INTEGER NOT NULL,           -- the lowest is served next
    gate  INTEGER NOT NULL DEFAULT 0, -- 0 open; 1 shut until a job with its key of `concurrency` ends; otherwise, until this moment
    PRIMARY KEY (queue, lane)
) WITHOUT ROWID;

CREATE INDEX lanes_open ON lanes (queue, turn) WHERE gate = 0;
CREATE INDEX lanes_full ON lanes (lane ->> 0, turn) WHERE gate = 1;
CREATE INDEX lanes_late ON lanes (gate) WHERE gate > 1;
CREATE INDEX lanes_concurrency ON lanes (lane ->> 0);
CREATE INDEX lanes_rate ON lanes (lane ->> 1);

-- When jobs with a limit of their rate have started lately.
CREATE TABLE rates (
    key    TEXT    NOT NULL PRIMARY KEY,
    starts TEXT    NOT NULL, -- JSON; src/store/window.rs says how
    latest TEXT    NOT NULL, -- the limit of the latest job, as JSON
    until  INTEGER NOT NULL  -- from then on nothing of it counts any more
) WITHOUT ROWID;

CREATE INDEX rates_until ON rates (until);
