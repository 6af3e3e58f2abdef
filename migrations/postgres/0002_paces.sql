-- How fast owners submit, where a quota says how fast they may: src/store/owner.rs says how it is counted.
CREATE TABLE paces (
    owner    BIGINT NOT NULL PRIMARY KEY,
    clear_at BIGINT NOT NULL -- from then on nothing that was submitted counts any more
);
