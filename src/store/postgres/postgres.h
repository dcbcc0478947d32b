/* What the files of the PostgreSQL store share. */
#pragma once

#include "store/backend.h"
#include "store/postgres/connection.h"
#include "store/sealing.h"

struct pg_buffers; /* what a transaction has gathered to be written: see pg_flush */

/* This process among those that share the store; no 0: not registered yet. */
struct pg_node {
    uint32_t no;
    int64_t epoch;
    int64_t commit_seq; /* of the last transaction, or attempt at one */
    int64_t committed;  /* of the last that is known to be committed: the row never shows less */
    bool fresh;         /* made in this transaction */
};

/* The bulk replay that a step works on. */
struct pg_replaying {
    uint64_t key;
    uint32_t tenant_no;
    struct pg_rows row;
};

struct pg_store {
    struct store base;
    struct pg_source *source;
    struct pg writer;
    struct pg_node node;
    struct sealing sealing;
    struct pg_rows lent; /* the row of the last store_get_… */
    struct buf doc;      /* of its subscription, when that has headers */
    struct pg_buffers *buffers;
    struct pg_order *order; /* order.h */
    struct pg_keys *keys;   /* idempotency.c */
    bool changed;           /* the control plane, in this transaction */
    bool replay_progress;
    /* As a node among several (store/cluster.h). */
    int64_t lease_ms;
    atomic_int_fast64_t send_until_us;
    uint64_t applied_told;
    struct feed_position applied;
    int duty_pid[DUTIES]; /* of the session that has it */
    struct pg_replaying replaying;
};

struct pg_reader {
    struct store_reader base;
    struct pg conn;
    const struct sealing *sealing; /* the store's */
    int64_t days_due_at;           /* when keeping house next looks at days */
};

static inline struct pg_store *pg_of(struct store *s) {
    return (struct pg_store *)s;
}

static inline struct pg_reader *pg_reader_of(struct store_reader *r) {
    return (struct pg_reader *)r;
}

/* The calls of this backend, each as store.h has it. */
#define X(name) typeof(store_##name) postgres_##name;
STORE_URL_CALLS(X)
STORE_CALLS(X)
STORE_READER_CALLS(X)
#undef X

/* ---- what a transaction gathers (gather.c) ---- */

int pg_buffers_open(struct pg_store *s) MUST_USE;
void pg_buffers_close(struct pg_store *s);
/* A transaction begins: the one before it is committed, or rolled back. */
void pg_buffers_begin(struct pg_store *s);
/* Sends what was gathered, without waiting. Called before a savepoint and before the commit, and by whoever
 * reads what may be in there. */
int pg_flush(struct pg_store *s) MUST_USE;
/* Forgets what was gathered: the transaction, or the savepoint, is rolled back. Since a savepoint begins with
 * empty buffers, what they hold is all of it. */
void pg_buffers_drop(struct pg_store *s);

/* ---- nodes (node.c) ---- */

enum { PG_LEASE_MS = 10000 };

/* Enters this process among the nodes, once, within a transaction. */
int pg_node_register(struct pg_store *s, const char *name, int64_t now) MUST_USE;
/* For how long it lives without a word. What it has locked when it is frozen within a transaction is free
 * after half of that. Within a transaction. */
int pg_set_lease(struct pg_store *s, int64_t lease_ms) MUST_USE;
/* Leaves them: what it held is free. */
void pg_node_leave(struct pg_store *s);
/* Commits; the node's own row goes with it. When another node has declared this one dead the process ends:
 * its supervisor starts it anew. */
int pg_node_commit(struct pg_store *s) MUST_USE;

/* Keeps send_until_us after a commit that was sent then. */
void pg_node_renewed(struct pg_store *s, int64_t sent_us);
extern const struct store_cluster postgres_cluster;

/* ---- the schema (migrate.c) ---- */

/* Brings the schema up to date, under a lock; *ret_from is what it was (0: new), *ret_to what it is. c is
 * outside of a transaction. */
int pg_migrate(struct pg *c, size_t *ret_from, size_t *ret_to, const char **ret_message) MUST_USE;
/* 0: there is none yet. */
int pg_schema_version(struct pg *c, size_t *ret) MUST_USE;
/* A connection to a store that need not be open, looked at for what would make it unfit. *ret_source goes
 * with it. */
int pg_open_url(const char *url, struct pg *c, struct pg_source **ret_source,
                const char **ret_message) MUST_USE;

/* ---- the control plane ---- */

/* Tells the other nodes of a change, once the transaction is committed. */
enum pg_change { PG_CHANGE_TENANT = 1, PG_CHANGE_SUBSCRIPTION = 2, PG_CHANGE_KEY = 3 };
int pg_note_change(struct pg_store *s, enum pg_change kind, uint32_t tenant_no, uint64_t no) MUST_USE;

/* Columns: no, id, doc, created_at, updated_at */
#define PG_TENANT_COLUMNS "no, id, doc, created_at, updated_at, tier_change"
void pg_read_tenant(const struct pg_rows *rows, struct tenant_record *ret);
/* Columns: no, tenant, key, tail, status, disabled_reason, doc, created_at, updated_at, resumed_at,
 * failing_since, raised_since, jobs_settled, relane, headers, headers_key */
#define PG_SUBSCRIPTION_COLUMNS                                                                              \
    "no, tenant, key, tail, status, disabled_reason, doc, created_at, updated_at, resumed_at, "              \
    "failing_since, raised_since, jobs_settled, relane, headers, headers_key"
enum { PG_SUBSCRIPTION_HEADERS = 14 };
/* The document without its headers: pg_open_subscription (secrets.h) puts them back. */
void pg_read_subscription(const struct pg_rows *rows, struct subscription_record *ret);

/* As a LIMIT. */
static inline int64_t pg_limit(size_t limit) {
    return limit > INT64_MAX ? INT64_MAX : (int64_t)limit;
}

/* ---- bulk replays (replay.c) ---- */

/* Takes in what has ended since the last time; the replay's row, when somebody may work on it, is locked. */
int pg_take_in_replayed(struct pg *c, uint32_t tenant_no, uint64_t replay_key) MUST_USE;

/* A row that a store_get_… lends to its caller until the next call. */
static inline struct pg_rows *pg_lend(struct pg_store *s) {
    pg_rows_free(&s->lent);
    return &s->lent;
}
