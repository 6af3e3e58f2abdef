-- Whose the job is of which is told: a key that may see its own alone must not go through those of all others. -1 for nobody; NULL where it is not
-- known yet, which is what was there before, and what servers of the version before write: that is found out bit by bit (`note_owners`).
SET LOCAL lock_timeout = '5s';
SELECT 1 FROM shared FOR UPDATE;
ALTER TABLE deliveries ADD COLUMN owner BIGINT;
-- Not CONCURRENTLY: that waits for every statement under way, and nodes that start together wait in one for the migrations of the first. A million
-- messages take about a second.
CREATE INDEX deliveries_owner ON deliveries (owner, place);
