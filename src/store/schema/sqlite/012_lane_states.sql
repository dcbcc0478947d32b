-- What lanes have learnt of their endpoints (an open breaker, a lowered concurrency limit), for the next start. Only lanes that
-- have something to tell have a row.
CREATE TABLE lane_states (
    subscription INTEGER PRIMARY KEY,
    state        BLOB NOT NULL
);
