-- Workloads that are too long for the rows of their jobs; `workload` is empty then. One stands here from its job's acceptance until its
-- result is removed, wherever the row of the job goes meanwhile.
CREATE TABLE payloads (
    n    INTEGER NOT NULL PRIMARY KEY,
    text TEXT    NOT NULL
);

ALTER TABLE jobs ADD COLUMN payload INTEGER;    -- its place in `payloads`
ALTER TABLE results ADD COLUMN payload INTEGER;
