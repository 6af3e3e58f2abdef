-- What this database calls itself where it keeps things outside: at random, and for good.
CREATE TABLE identity (
    one SMALLINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id  UUID     NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO identity (one) VALUES (1);
