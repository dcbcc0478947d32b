/* What the files of the PostgreSQL store share. */
#pragma once

#include "store/backend.h"
#include "store/postgres/connection.h"
#include "store/sealing.h"

struct pg_buffers; /* what a transaction has gathered to be written: see pg_flush */

/* This process among those that share the store; no 0: not registered yet. */
struct pg_node {
    uint32_t no;
    int64_t epoch, commit_seq;
};

struct pg_store {
    struct store base;
    struct pg_source *source;
    struct pg writer;
    struct pg_node node;
    struct sealing sealing;
    struct pg_rows lent; /* the row of the last store_get_… */
    struct pg_buffers *buffers;
    bool replay_progress;
};

struct pg_reader {
    struct store_reader base;
    struct pg conn;
    const struct sealing *sealing; /* the store's */
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

/* ---- what a transaction gathers (buffers.c) ---- */

int pg_buffers_open(struct pg_store *s) MUST_USE;
void pg_buffers_close(struct pg_store *s);
/* Sends what was gathered, without waiting. Called before a savepoint and before the commit, and by whoever
 * reads what may be in there. */
int pg_flush(struct pg_store *s) MUST_USE;
/* Forgets what was gathered: the transaction, or the savepoint, is rolled back. Since a savepoint begins with
 * empty buffers, what they hold is all of it. */
void pg_buffers_drop(struct pg_store *s);

/* A row that a store_get_… lends to its caller until the next call. */
static inline struct pg_rows *pg_lend(struct pg_store *s) {
    pg_rows_free(&s->lent);
    return &s->lent;
}
