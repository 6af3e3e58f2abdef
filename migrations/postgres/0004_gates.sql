-- A lane is shut for one thing: 1 for its key, 2 for the quota of its owner; anything above is when it opens. What becomes free opens one in
-- each queue, since who may serve the queues is not known.
DROP INDEX lanes_owner;
DROP INDEX lanes_late;
CREATE INDEX lanes_full ON lanes (ckey, queue, place, turn) WHERE gate = 1;
CREATE INDEX lanes_over ON lanes (owner, queue, place, turn) WHERE gate = 2;
CREATE INDEX lanes_late ON lanes (gate) WHERE gate > 2;
-- What those are shut for that were shut before is found out when they are looked at, which is at once.
UPDATE lanes SET gate = 3 WHERE gate = 1;
UPDATE shared SET state = jsonb_set(state::JSONB, '{next_open}', '3')::TEXT;
