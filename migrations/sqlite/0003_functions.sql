-- Users' own code: one row a version. Of the versions of a name, the one that was deployed last is its latest.
CREATE TABLE functions (
    name        TEXT    NOT NULL,
    version     TEXT    NOT NULL, -- SHA-256 in hexadecimal
    created_at  INTEGER NOT NULL,
    deployed_at INTEGER NOT NULL, -- unlike every other one's
    kind        INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    entrypoint  TEXT    NOT NULL,
    form        INTEGER NOT NULL,
    interpreter TEXT,
    bound       INTEGER,
    choice      INTEGER NOT NULL,
    deadline_ms INTEGER,
    limits      TEXT,             -- JSON of those that are set; NULL for none
    content     BLOB    NOT NULL, -- last: whoever looks for the rest need not read it
    PRIMARY KEY (name, version)
);
