/* This process among those that share the store: its row is fence, heartbeat and the key of its commits. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/postgres/postgres.h"
#include "store/postgres/wait.h"

enum {
    RESOLVE_MS = PG_LEASE_MS, /* how long a commit is asked after: then this node may be declared dead */
    RESOLVE_PAUSE_MS = 20,
    EXIT_FENCED = 75, /* EX_TEMPFAIL: to be started anew */
};

static _Noreturn void end_fenced(const struct pg_store *s) {
    log_error(
        "another node has declared this one dead, for its lease had run out, or the database has gone back "
        "behind what this node wrote to it: the process ends, nothing of this transaction was written. Look "
        "for a frozen machine or a slow database, or for a failover that lost commits",
        log_int("node", s->node.no));
    _exit(EXIT_FENCED);
}

int pg_set_lease(struct pg_store *s, int64_t lease_ms) {
    struct pg *c = &s->writer;
    s->lease_ms = lease_ms;
    c->limits.idle_in_transaction_ms = (int)(lease_ms / 2);
    char text[16];
    snprintf(text, sizeof text, "%d", c->limits.idle_in_transaction_ms);
    pg_text(pg_params(c), slice_of(text));
    return pg_send(c, "SELECT set_config('idle_in_transaction_session_timeout', $1, false)");
}

int pg_node_register(struct pg_store *s, const char *name, int64_t now) {
    struct pg *c = &s->writer;
    if (s->node.no)
        return 0;
    /* One at a time, or two would take the same slot. */
    int r = pg_send(c, "SELECT pg_advisory_xact_lock(" PG_LOCK_CLASS ", 1)");
    if (r < 0)
        return r;
    struct pg_params *p = pg_params(c);
    pg_text(p, slice_of(name));
    pg_text(p, SLICE_LIT(POSTHORN_VERSION));
    pg_bigint(p, s->lease_ms);
    pg_bigint(p, now);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    r = pg_query_row(c,
                     "INSERT INTO nodes (slot, name, version, roles, tiers, lease_until, started_at)"
                     " SELECT free, $1, $2, 0, 0, " PG_NOW " + $3, $4 FROM generate_series(0, 63) free"
                     " WHERE NOT EXISTS (SELECT 1 FROM nodes WHERE slot=free AND lease_until>=" PG_NOW ")"
                     " ORDER BY free LIMIT 1 RETURNING no, epoch",
                     &rows);
    if (r < 0)
        return r;
    if (r == 0) {
        log_error("64 nodes are on this store already: no more can be");
        return -EIO;
    }
    s->node = (struct pg_node){
        .no = (uint32_t)pg_column_int(&rows, 0), .epoch = pg_column_int(&rows, 1), .fresh = true};
    return 0;
}

void pg_node_leave(struct pg_store *s) {
    struct pg *c = &s->writer;
    if (!s->node.no || c->in_transaction || !c->conn || c->broken)
        return;
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)s->node.no);
    pg_bigint(p, s->node.epoch);
    (void)!pg_query(c,
                    "WITH me AS (DELETE FROM nodes WHERE no=$1 AND epoch=$2 RETURNING no)"
                    " UPDATE partitions SET node=NULL FROM me WHERE node=me.no",
                    NULL);
    s->node = (struct pg_node){0};
}

/* ---- commits ---- */

/* Waits for a transaction whose answer was lost: its row lock tells when it is over. 1: it was committed. 0:
 * it was not, and cannot be any more: what of it may still be on its way finds a later number in the row. */
static int ask_outcome(struct pg_store *s) {
    struct pg *c = &s->writer;
    int r = pg_ensure(c);
    if (r < 0)
        return r;
    pg_begin(c);
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)s->node.no);
    pg_bigint(p, s->node.epoch);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    r = pg_query_row(c, "SELECT commit_seq FROM nodes WHERE no=$1 AND epoch=$2 FOR UPDATE", &rows);
    int64_t last = r > 0 ? pg_column_int(&rows, 0) : 0;
    if (r >= 0 && !s->node.fresh && (r == 0 || last < s->node.committed))
        end_fenced(s);
    bool committed = r > 0 && last == s->node.commit_seq;
    if (r > 0 && !committed) {
        p = pg_params(c);
        pg_int(p, (int32_t)s->node.no);
        pg_bigint(p, s->node.commit_seq + 1);
        r = pg_send(c, "UPDATE nodes SET commit_seq=$2 WHERE no=$1");
    }
    if (r >= 0)
        r = pg_commit(c, NULL, NULL);
    if (r < 0)
        pg_rollback(c);
    return r < 0 ? r : committed;
}

static int resolve(struct pg_store *s) {
    int64_t until = clock_mono_us() + (int64_t)RESOLVE_MS * 1000;
    const struct timespec pause = {.tv_nsec = RESOLVE_PAUSE_MS * 1000000L};
    int r = -EIO;
    while (s->node.no && r < 0 && clock_mono_us() < until) {
        r = ask_outcome(s);
        if (r < 0)
            nanosleep(&pause, NULL);
    }
    if (r > 0)
        s->node.committed = s->node.commit_seq;
    s->node.commit_seq++;
    if (r < 0)
        log_error(
            "whether the last transaction was committed cannot be told: its requests are answered with an "
            "error, though it may have taken place");
    else
        log_warn("a commit's answer was lost", log_str("outcome", r ? "committed" : "not committed"));
    return r > 0 ? 0 : -EIO;
}

int pg_node_commit(struct pg_store *s) {
    struct pg *c = &s->writer;
    if (!s->node.no) {
        int r = pg_commit(c, NULL, NULL);
        return r == -EAGAIN ? resolve(s) : r;
    }
    struct pg_params *p = pg_params(c);
    pg_int(p, (int32_t)s->node.no);
    pg_bigint(p, s->node.epoch);
    pg_bigint(p, ++s->node.commit_seq);
    pg_bigint(p, s->lease_ms);
    pg_bigint(p, s->node.committed);
    int64_t sent_us = clock_mono_us();
    /* Without a row this divides by zero: then COMMIT, right behind it, is not heard. Neither is there one
     * where an earlier commit is gone: what this node remembers never was. */
    int r = pg_commit(c,
                      "WITH me AS (UPDATE nodes SET commit_seq=$3, lease_until=" PG_NOW " + $4"
                      " WHERE no=$1 AND epoch=$2 AND commit_seq>=$5 AND commit_seq<$3 RETURNING 1)"
                      " SELECT 1 / count(*) FROM me",
                      NULL);
    if (r < 0 && strcmp(c->sqlstate, PG_FENCED) == 0)
        end_fenced(s);
    if (r == 0)
        s->node.committed = s->node.commit_seq;
    if (r == -EAGAIN)
        r = resolve(s);
    if (r == 0) {
        s->node.fresh = false;
        pg_node_renewed(s, sent_us);
    }
    return r;
}
