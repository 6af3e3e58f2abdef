-- How much a key may have the server do, as JSON; NULL for what the settings say. Keys that took each other's place have the same.
ALTER TABLE keys ADD COLUMN quota TEXT;

-- The third name of a lane is the owner of its jobs, if the quota of that owner says how many of them may run at once.
CREATE INDEX lanes_owner ON lanes (lane ->> 2, turn) WHERE gate = 1;

-- What waits counts for a quota.
CREATE INDEX comparisons_waiting ON comparisons (owner) WHERE state = 0;
