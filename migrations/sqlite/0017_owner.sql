-- Whose a job is: the number of the key with which it was submitted, or of the first key in whose place this one is. It stands in the
-- options, which travel with a job wherever it goes; what nobody owns has no row of an index.
ALTER TABLE jobs    ADD COLUMN owner INTEGER GENERATED ALWAYS AS (options ->> '$.owner') VIRTUAL;
ALTER TABLE results ADD COLUMN owner INTEGER GENERATED ALWAYS AS (options ->> '$.owner') VIRTUAL;
CREATE INDEX jobs_owner    ON jobs    (owner, id) WHERE owner IS NOT NULL;
CREATE INDEX results_owner ON results (owner, id) WHERE owner IS NOT NULL;

-- Whose things a key is for.
ALTER TABLE keys ADD COLUMN owner INTEGER;

ALTER TABLE comparisons ADD COLUMN owner INTEGER;

-- Results are counted for each owner.
CREATE TABLE rollups_by_owner (
    type     TEXT    NOT NULL,
    bound    INTEGER NOT NULL,
    executor INTEGER NOT NULL,
    ending   INTEGER NOT NULL,
    owner    INTEGER NOT NULL, -- -1 for nobody
    sketches BLOB    NOT NULL,
    PRIMARY KEY (type, bound, executor, ending, owner)
) WITHOUT ROWID;
INSERT INTO rollups_by_owner SELECT type, bound, executor, ending, -1, sketches FROM rollups;
DROP TABLE rollups;
ALTER TABLE rollups_by_owner RENAME TO rollups;
