-- How many results were removed: with those in the rollups, it tells how many are kept without counting them.
CREATE TABLE retention (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    removed INTEGER NOT NULL
);

INSERT INTO retention VALUES (1, 0);
