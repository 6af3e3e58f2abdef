-- One workload on several executors: what was asked and what was found, as JSON.
CREATE TABLE comparisons (
    id           BLOB    NOT NULL PRIMARY KEY, -- UUIDv7, 16 bytes: sorts by the time of the request
    state        INTEGER NOT NULL,             -- src/store/sqlite/codes.rs says which
    requested_at INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    request      TEXT    NOT NULL,
    report       TEXT,
    error        TEXT
) WITHOUT ROWID;

-- The few that have not ended: 0 waits, 1 runs.
CREATE INDEX comparisons_unfinished ON comparisons (state, id) WHERE state < 2;
