-- Bulk replays: jobs that keep how far they have come (src/store/replay.h).

CREATE TABLE replays (
    key             INTEGER PRIMARY KEY, -- of its id
    tail            INTEGER NOT NULL,
    tenant          INTEGER NOT NULL,
    state           INTEGER NOT NULL, -- enum replay_state
    subscription    INTEGER NOT NULL, -- 0: all of the tenant
    states          INTEGER NOT NULL, -- set of 1 << enum delivery_state
    reasons         INTEGER NOT NULL, -- set of 1 << enum delivery_reason; 0: any
    event_type      TEXT,
    first_event     INTEGER NOT NULL, -- keys of events, both included
    last_event      INTEGER NOT NULL,
    closed_after    INTEGER NOT NULL,
    include_missing INTEGER NOT NULL,
    dry_run         INTEGER NOT NULL,
    per_second      INTEGER NOT NULL, -- 0: as fast as its share allows
    most            INTEGER NOT NULL, -- no more are started
    requested_by    TEXT    NOT NULL,
    matched         INTEGER NOT NULL, -- as counted when it was asked for
    started         INTEGER NOT NULL DEFAULT 0, -- a dry run: found
    done            INTEGER NOT NULL DEFAULT 0,
    failed          INTEGER NOT NULL DEFAULT 0,
    opened          INTEGER NOT NULL DEFAULT 0, -- subscriptions up to this number have got their lane
    served          INTEGER NOT NULL DEFAULT 0, -- the lane that had its turn last
    paid_until      INTEGER NOT NULL DEFAULT 0, -- pace: what was started is paid for up to this time, in microseconds
    cancel_event    INTEGER NOT NULL DEFAULT 0, -- how far cancelling has come
    cancel_lane     INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX replays_by_tenant ON replays (tenant, key);
CREATE INDEX replays_open ON replays (key) WHERE state = 0 OR state = 3; -- there is work
CREATE INDEX replays_recovery ON replays (subscription, key) WHERE requested_by = 'system';

-- How far a replay has come in each subscription that it is not done with.
CREATE TABLE replay_lanes (
    replay       INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    cursor       INTEGER NOT NULL, -- events up to this key are looked at
    share        INTEGER NOT NULL, -- how many may be outstanding at a time
    outstanding  INTEGER NOT NULL DEFAULT 0, -- started, and their first attempt is not settled
    room         INTEGER NOT NULL,           -- share - 2 * outstanding
    PRIMARY KEY (replay, subscription)
) WITHOUT ROWID;
-- Those that may go on: half of their share is free.
CREATE INDEX replay_lanes_ready ON replay_lanes (replay, subscription) WHERE room >= 0;

-- How many deliveries are in the dead-letter queue, by subscription and reason.
CREATE TABLE dlq_counts (
    tenant       INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    reason       INTEGER NOT NULL, -- enum delivery_reason
    n            INTEGER NOT NULL,
    PRIMARY KEY (tenant, subscription, reason)
) WITHOUT ROWID;
INSERT INTO dlq_counts SELECT tenant, subscription, reason, count(*) FROM deliveries WHERE state = 4 GROUP BY 1, 2, 3;
-- Only retention deletes deliveries, many at once; transitions are counted where they are written.
CREATE TRIGGER dlq_retained AFTER DELETE ON deliveries WHEN old.state = 4 BEGIN
    UPDATE dlq_counts SET n = n - 1
        WHERE tenant = old.tenant AND subscription = old.subscription AND reason = old.reason;
END;
