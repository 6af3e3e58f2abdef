-- API keys, those that are revoked included: their ids stand in `acts`. Of a secret only its hash is kept.
CREATE TABLE keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    scopes       INTEGER NOT NULL, -- one bit each
    hash         BLOB    NOT NULL, -- SHA-256 of the key's text
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) WITHOUT ROWID;

-- What administrators did. Written before it is done; the status is that of the answer.
CREATE TABLE acts (
    id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- never given twice
    at        INTEGER NOT NULL,
    key       TEXT,
    operation TEXT    NOT NULL,
    target    TEXT    NOT NULL,
    status    INTEGER
);
