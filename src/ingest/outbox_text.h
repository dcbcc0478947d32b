/* The outbox in SQL: what makes it, for the producer's database, and what a relay asks. Pure. */
#pragma once

#include "base/bytes.h"
#include "ingest/outbox_share.h"

enum { OUTBOX_SLEEP_LOCKS = 128 };

/* What differs between the databases. */
struct outbox_dialect;
extern const struct outbox_dialect outbox_postgres, outbox_mysql, outbox_sqlite;
/* "postgres", "mysql" (also "mariadb") or "sqlite"; NULL: none. */
const struct outbox_dialect *outbox_dialect_find(const char *name);
const char *outbox_dialect_name(const struct outbox_dialect *d);

/* [A-Za-z_][A-Za-z0-9_]{0,39}, with a schema of the same form and a dot before it or not. */
bool outbox_table_valid(const char *table);

struct outbox_ddl_options {
    const char *table;
    bool notify; /* PostgreSQL: a trigger that wakes the relay */
};
/* Statements, each ended by a semicolon. */
void outbox_ddl(const struct outbox_dialect *d, const struct outbox_ddl_options *o, struct buf *out);

/* ---- a relay's statements ---- */

enum outbox_statement {
    OUTBOX_CHECK, /* whether both tables are there, with their columns */
    OUTBOX_CHECK_REJECTED,
    OUTBOX_LISTEN,       /* absent where the database tells nothing */
    OUTBOX_LOCK_BASE,    /* what the names of locks begin with */
    OUTBOX_BEGIN,        /* before the claim; absent where claiming takes no lock */
    OUTBOX_CLAIM,        /* rows of `list`, locked: the columns of enum outbox_column */
    OUTBOX_BEGIN_SETTLE, /* after publishing; absent when OUTBOX_BEGIN has begun it */
    OUTBOX_REJECT,       /* copies the row `list` into the table of rejected ones, with `literal` as reason */
    OUTBOX_DELETE,       /* the rows of `list` */
    OUTBOX_COMMIT,
    OUTBOX_ROLLBACK,
    OUTBOX_STATEMENTS
};

enum outbox_column {
    OUTBOX_SEQ,
    OUTBOX_ID,
    OUTBOX_TENANT,
    OUTBOX_TYPE,
    OUTBOX_DATA, /* NULL when it has more than `row_bytes_max` */
    OUTBOX_ORDERING_KEY,
    OUTBOX_SCHEMA_VERSION,
    OUTBOX_DELIVER_AT, /* Unix ms; INT64_MAX: no time that there is */
    OUTBOX_CREATED_AT, /* Unix ms */
    OUTBOX_DATA_SIZE,
    OUTBOX_COLUMNS
};

struct outbox_blanks {
    const char *table;
    const char *list;    /* numbers with commas between */
    const char *literal; /* as the driver wrote it */
    size_t row_bytes_max;
};
/* False: the dialect has none. */
bool outbox_statement(const struct outbox_dialect *d, enum outbox_statement which,
                      const struct outbox_blanks *b, struct buf *out);

/* The first `limit` rows of these ranges, in order: their numbers and the sizes of their data. `tenants`:
 * those to pass over, as literals with commas between, NULL: none; rows without one count as
 * `default_tenant`, a literal.
 */
void outbox_look(const struct outbox_dialect *d, const char *table, uint32_t ranges, const char *tenants,
                 const char *default_tenant, size_t limit, struct buf *out);

/* Locks are numbered: ranges from 0 on, members from OUTBOX_RANGES on, and from OUTBOX_SLEEP_LOCKS on the
 * ranges whose relay sleeps. `base` is what OUTBOX_LOCK_BASE gave; one row with a column a bit of `locks`,
 * true where it was got. */
void outbox_try_locks(const struct outbox_dialect *d, const char *base, uint32_t locks, unsigned first,
                      struct buf *out);
void outbox_unlock(const struct outbox_dialect *d, const char *base, uint32_t locks, unsigned first,
                   struct buf *out);
/* Ends the sessions of relays that hang: nothing came from them for OUTBOX_EVICT_SECONDS, longer than the
 * server's own limits allow. PostgreSQL does not see to those limits while it waits for a client that takes
 * no notices. False: the dialect needs none. */
enum { OUTBOX_EVICT_SECONDS = 75 };
bool outbox_evict(const struct outbox_dialect *d, const char *base, struct buf *out);
/* One number: a bit for each member's lock that somebody holds. */
void outbox_members(const struct outbox_dialect *d, const char *base, struct buf *out);
