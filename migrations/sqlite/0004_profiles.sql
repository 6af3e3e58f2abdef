-- What was learned of workloads: one row for runs that are alike. What is in it, src/profile says.
CREATE TABLE profiles (
    key        TEXT    NOT NULL PRIMARY KEY,
    changed_at INTEGER NOT NULL,
    figures    TEXT    NOT NULL, -- JSON
    sketches   BLOB    NOT NULL
);

-- What the runs of a day came to together.
CREATE TABLE profile_days (
    day      INTEGER NOT NULL, -- since the Unix epoch, in UTC
    key      TEXT    NOT NULL,
    executor INTEGER NOT NULL,
    bound    INTEGER NOT NULL,
    totals   TEXT    NOT NULL, -- JSON
    PRIMARY KEY (day, key, executor, bound)
) WITHOUT ROWID;

-- What a result's figures speak against: a bit a kind; NULL, as nearly always, for nothing.
ALTER TABLE results ADD COLUMN findings INTEGER;
CREATE INDEX results_findings ON results (id) WHERE findings IS NOT NULL;
