-- A lane is shut for one thing: 1 for its key, 2 for the quota of its owner; anything above is when it opens. What becomes free opens one in
-- each queue, since who may serve the queues is not known.
DROP INDEX lanes_full;
DROP INDEX lanes_owner;
DROP INDEX lanes_late;
CREATE INDEX lanes_full ON lanes (queue, lane ->> 0, turn) WHERE gate = 1;
CREATE INDEX lanes_over ON lanes (queue, lane ->> 2, turn) WHERE gate = 2;
CREATE INDEX lanes_late ON lanes (gate) WHERE gate > 2;
