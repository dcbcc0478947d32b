-- The store of one process. Times are Unix milliseconds; NULL (or an absent row) stands for "none".
-- Ids: key is the UUIDv7's 60 ascending bits, tail the other 62 (core/id.h).

CREATE TABLE tenants (
    no         INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL,
    doc        TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
);
CREATE UNIQUE INDEX tenants_by_id ON tenants (id) WHERE deleted_at IS NULL;

CREATE TABLE subscriptions (
    no              INTEGER PRIMARY KEY AUTOINCREMENT,
    key             INTEGER NOT NULL,
    tail            INTEGER NOT NULL,
    tenant          INTEGER NOT NULL,
    status          INTEGER NOT NULL, -- enum subscription_status
    disabled_reason TEXT,
    doc             TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    resumed_at      INTEGER,
    failing_since   INTEGER
);
CREATE UNIQUE INDEX subscriptions_by_key ON subscriptions (key, tail);
CREATE INDEX subscriptions_by_tenant ON subscriptions (tenant, no);

CREATE TABLE secrets (
    key          INTEGER NOT NULL,
    tail         INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    scheme       INTEGER NOT NULL, -- enum signing_scheme
    bytes        BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    PRIMARY KEY (subscription, key, tail)
) WITHOUT ROWID;

CREATE TABLE api_keys (
    key        INTEGER NOT NULL,
    tail       INTEGER NOT NULL,
    hash       BLOB    NOT NULL UNIQUE, -- SHA-256 of the key's text
    tenant     INTEGER NOT NULL,        -- 0: every tenant
    scopes     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    PRIMARY KEY (key, tail)
) WITHOUT ROWID;

CREATE TABLE audit (
    no     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    tenant INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    action TEXT    NOT NULL,
    object TEXT    NOT NULL,
    detail TEXT
);

CREATE TABLE workers (
    no         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    user_agent TEXT    NOT NULL,
    started_at INTEGER NOT NULL
);

-- created_at of an event is the time in its key.
CREATE TABLE events (
    key            INTEGER PRIMARY KEY,
    tail           INTEGER NOT NULL,
    tenant         INTEGER NOT NULL,
    type           TEXT    NOT NULL,
    schema_version TEXT    NOT NULL,
    ordering_key   TEXT,
    deliver_at     INTEGER,
    data_size      INTEGER NOT NULL, -- the data are the last bytes of body before its closing brace
    deliveries     INTEGER NOT NULL, -- made with the event; a job counts its own
    has_job        INTEGER NOT NULL,
    body           BLOB    NOT NULL  -- the envelope, as every subscriber gets it
);
CREATE INDEX events_by_tenant ON events (tenant, key);
CREATE INDEX events_by_ordering_key ON events (tenant, ordering_key, key) WHERE ordering_key IS NOT NULL;

CREATE TABLE idempotency (
    tenant     INTEGER NOT NULL,
    key        TEXT    NOT NULL,
    body_hash  BLOB    NOT NULL,
    events     BLOB    NOT NULL, -- key and tail of each, 8 bytes big-endian each
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Stays, done, until its event goes: it tells how many deliveries there are.
CREATE TABLE fanout_jobs (
    event      INTEGER PRIMARY KEY,
    tenant     INTEGER NOT NULL,
    cursor     INTEGER NOT NULL, -- every subscription up to this number is expanded
    upper      INTEGER NOT NULL, -- the greatest number there was when the event came
    deliveries INTEGER NOT NULL,
    state      INTEGER NOT NULL  -- enum fanout_state
);
CREATE INDEX fanout_jobs_open ON fanout_jobs (event) WHERE state <> 2;

-- One row a delivery; it moves through the states of core/delivery.h. The primary key is what its id is made of.
CREATE TABLE deliveries (
    event        INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    tenant       INTEGER NOT NULL,
    state        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0, -- begun; the number of the one under way is its fencing token
    base         INTEGER NOT NULL DEFAULT 0, -- attempts before the last replay
    uncounted    INTEGER NOT NULL DEFAULT 0, -- since then, those that met backpressure
    due_at       INTEGER,                    -- when its lane may claim it; NULL: closed, ATTEMPTING or behind another
    lease_until  INTEGER,                    -- while ATTEMPTING
    lane_key     INTEGER,                    -- while open in an ordered lane
    order_at     INTEGER NOT NULL,           -- max(created_at, deliver_at)
    window_at    INTEGER NOT NULL,           -- when its window began
    claimed_at   INTEGER,
    closed_at    INTEGER,
    last_status  INTEGER,
    last_error   INTEGER,
    reason       INTEGER,                    -- enum delivery_reason
    replay_source TEXT,
    replay_by    TEXT,
    test         INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER,                    -- NULL: with its event
    PRIMARY KEY (event, subscription)
) WITHOUT ROWID;
-- What a lane may claim, longest due first, without passing over any other lane's backlog.
CREATE INDEX deliveries_due ON deliveries (subscription, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_leased ON deliveries (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX deliveries_ordered ON deliveries (subscription, lane_key, order_at, event) WHERE lane_key IS NOT NULL;
-- Only what failed at least once is in these. (OR, not IN: SQLite builds a table for an IN list at every statement that writes.)
CREATE INDEX deliveries_retrying ON deliveries (subscription, window_at) WHERE state = 2 OR state = 5;
CREATE INDEX deliveries_failed ON deliveries (tenant, state, event) WHERE state = 2 OR state = 4 OR state = 5;
CREATE INDEX deliveries_dead ON deliveries (subscription, event) WHERE state = 4;

-- The log of each subscription: which deliveries it had. By about an hour first, so that a blast to many subscriptions writes
-- to pages that lie together; a reader steps from hour to hour. Filled in some seconds late, many deliveries at once and in
-- this order: filled in with each delivery it would dirty a page a subscription in every transaction. What is newer than
-- log_watermark (an event's key) is not in it yet, and is found by the primary key of deliveries.
CREATE TABLE subscription_log (
    hour         INTEGER NOT NULL, -- event >> 34
    subscription INTEGER NOT NULL,
    event        INTEGER NOT NULL,
    PRIMARY KEY (hour, subscription, event)
) WITHOUT ROWID;
CREATE TABLE marks (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO marks VALUES ('log_watermark', 0);

CREATE TABLE attempts (
    event            INTEGER NOT NULL,
    subscription     INTEGER NOT NULL,
    number           INTEGER NOT NULL,
    started_at       INTEGER NOT NULL,
    settled_at       INTEGER NOT NULL,
    to_state         INTEGER NOT NULL,
    reason           INTEGER,
    latency_ms       INTEGER NOT NULL,
    dns_ms           INTEGER NOT NULL,
    connect_ms       INTEGER NOT NULL,
    tls_ms           INTEGER NOT NULL,
    wait_ms          INTEGER NOT NULL,
    status           INTEGER,
    error            INTEGER NOT NULL,
    trigger          INTEGER NOT NULL,
    worker           INTEGER NOT NULL,
    url              TEXT    NOT NULL,
    content_type     TEXT    NOT NULL,
    request_headers  TEXT,
    signature        TEXT,
    response_headers TEXT,
    response_body    BLOB,
    response_hash    BLOB, -- NULL: nothing was read
    PRIMARY KEY (event, subscription, number)
) WITHOUT ROWID;

-- Transitions that no attempt stands for.
CREATE TABLE transitions (
    event        INTEGER NOT NULL,
    subscription INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    from_state   INTEGER NOT NULL,
    to_state     INTEGER NOT NULL,
    reason       INTEGER NOT NULL,
    PRIMARY KEY (event, subscription, at, to_state)
) WITHOUT ROWID;
