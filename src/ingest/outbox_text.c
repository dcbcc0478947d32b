#include "ingest/outbox_text.h"

#include <stdio.h>
#include <strings.h>

#include "base/embed.h"

/* Only so that the build sees that a .sql file has changed. */
#if __has_include("ingest/outbox_ddl/outbox_ddl_stamp.h")
#include "ingest/outbox_ddl/outbox_ddl_stamp.h"
#endif

/* What makes an outbox, with {blanks}. OUTBOX_DDL_DIR is the folder's path, given by the build as a string
 * literal. */
EMBED_FILE(postgres_ddl, OUTBOX_DDL_DIR "/postgres.sql");
EMBED_FILE(postgres_ddl_notify, OUTBOX_DDL_DIR "/postgres_notify.sql");
EMBED_FILE(mysql_ddl, OUTBOX_DDL_DIR "/mysql.sql");
EMBED_FILE(sqlite_ddl, OUTBOX_DDL_DIR "/sqlite.sql");

enum { PART_MAX = 40 };

struct outbox_dialect {
    const char *name;
    char quote;
    const char *ddl, *ddl_notify; /* the second: NULL */
    const char *statements[OUTBOX_STATEMENTS];
    const char *data_size;
    const char *lock, *unlock; /* of {base} and a number */
    const char *members;       /* NULL: made of `member` */
    const char *member;        /* a term: 1 when it is held */
    const char *evict;         /* NULL: the server does it */
};

/* ---- PostgreSQL ---- */

#define COLUMNS          "seq, id, tenant, type, data, ordering_key, schema_version, deliver_at, created_at"
#define REJECTED_COLUMNS COLUMNS ", reason"

const struct outbox_dialect outbox_postgres = {
    .name = "postgres",
    .quote = '"',
    .ddl = postgres_ddl,
    .ddl_notify = postgres_ddl_notify,
    .statements =
        {
            [OUTBOX_CHECK] = "select " COLUMNS ", hash_range from {table} limit 0",
            [OUTBOX_CHECK_REJECTED] = "select " REJECTED_COLUMNS " from {rejected} limit 0",
            [OUTBOX_LISTEN] = "listen {channel}",
            [OUTBOX_LOCK_BASE] = "select (112::bigint << 56) | ('{table}'::regclass::oid::bigint << 8)",
            [OUTBOX_BEGIN] = "begin",
            [OUTBOX_CLAIM] =
                "select seq, id::text, tenant, type, "
                "case when octet_length(data::text) <= {row_bytes_max} then data::text end, ordering_key, "
                "schema_version, case when isfinite(deliver_at) then floor(extract(epoch from deliver_at) * "
                "1000)::bigint when deliver_at > now() then 9223372036854775807 end, "
                "case when isfinite(created_at) then floor(extract(epoch from created_at) * 1000)::bigint "
                "end, "
                "octet_length(data::text) from {table} where seq in ({list}) order by seq for update skip "
                "locked",
            [OUTBOX_REJECT] = "insert into {rejected} (" REJECTED_COLUMNS ") select " COLUMNS
                              ", {literal} from {table} where seq = {list}",
            [OUTBOX_DELETE] = "delete from {table} where seq in ({list})",
            [OUTBOX_COMMIT] = "commit",
            [OUTBOX_ROLLBACK] = "rollback",
        },
    .data_size = "octet_length(data::text)",
    .lock = "pg_try_advisory_lock({base} + {number})",
    .unlock = "pg_advisory_unlock({base} + {number})",
    .members = "select coalesce(bit_or(1 << (objid::bigint - ({base} & 4294967295) - {ranges})::int), 0) "
               "from pg_locks "
               "where locktype = 'advisory' and granted and objsubid = 1 and classid::bigint = {base} >> 32 "
               "and database = (select oid from pg_database where datname = current_database()) "
               "and objid::bigint >= ({base} & 4294967295) + {ranges} "
               "and objid::bigint < ({base} & 4294967295) + {ranges} + {members}",
    .evict = "select pg_terminate_backend(a.pid) from pg_stat_activity a where a.usename = current_user "
             "and a.datname = current_database() and a.pid <> pg_backend_pid() "
             "and a.state_change < clock_timestamp() - interval '{evict_seconds} seconds' and exists "
             "(select from pg_locks l where l.pid = a.pid and l.locktype = 'advisory' and l.granted and "
             "l.objsubid = 1 "
             "and l.classid::bigint = {base} >> 32 and l.objid::bigint >= ({base} & 4294967295) "
             "and l.objid::bigint < ({base} & 4294967295) + {ranges} + {members})",
};

/* ---- MariaDB and MySQL ---- */

const struct outbox_dialect outbox_mysql = {
    .name = "mysql",
    .quote = '`',
    .ddl = mysql_ddl,
    .statements =
        {
            [OUTBOX_CHECK] = "select " COLUMNS ", hash_range from {table} limit 0",
            [OUTBOX_CHECK_REJECTED] = "select " REJECTED_COLUMNS " from {rejected} limit 0",
            [OUTBOX_LOCK_BASE] =
                "select concat('posthorn.', left(sha1(concat(database(), '.', '{table}')), 16))",
            [OUTBOX_BEGIN] = "start transaction",
            [OUTBOX_CLAIM] =
                "select seq, id, tenant, type, "
                "case when octet_length(data) <= {row_bytes_max} then data end, ordering_key, "
                "schema_version, case when deliver_at is not null and unix_timestamp(deliver_at) = 0 "
                "then 9223372036854775807 else floor(unix_timestamp(deliver_at) * 1000) end, "
                "floor(unix_timestamp(created_at) * 1000), octet_length(data) "
                "from {table} where seq in ({list}) order by seq for update skip locked",
            [OUTBOX_REJECT] = "insert into {rejected} (" REJECTED_COLUMNS ") select " COLUMNS
                              ", {literal} from {table} where seq = {list}",
            [OUTBOX_DELETE] = "delete from {table} where seq in ({list})",
            [OUTBOX_COMMIT] = "commit",
            [OUTBOX_ROLLBACK] = "rollback",
        },
    .data_size = "octet_length(data)",
    .lock = "get_lock('{base}.{number}', 0)",
    .unlock = "release_lock('{base}.{number}')",
    .member = "(is_used_lock('{base}.{number}') is not null)",
};

/* ---- SQLite ---- */

#define SQLITE_MS(column)                                                                                    \
    "strftime('%s', " column ") * 1000 + cast(substr(strftime('%f', " column "), 4) as integer)"

const struct outbox_dialect outbox_sqlite = {
    .name = "sqlite",
    .quote = '"',
    .ddl = sqlite_ddl,
    .statements =
        {
            [OUTBOX_CHECK] = "select " COLUMNS " from {table} limit 0",
            [OUTBOX_CHECK_REJECTED] = "select " REJECTED_COLUMNS " from {rejected} limit 0",
            /* There is one relay at a time, and a lock would keep the producer from writing meanwhile. */
            [OUTBOX_CLAIM] =
                "select seq, id, tenant, type, case when length(cast(data as blob)) <= {row_bytes_max} "
                "then cast(data as text) end, ordering_key, schema_version, "
                "case when deliver_at is null then null when strftime('%s', deliver_at) is null then "
                "9223372036854775807 else " SQLITE_MS("deliver_at") " end, " SQLITE_MS(
                    "created_at") ", "
                                  "length(cast(data as blob)) from {table} where seq in ({list}) order by "
                                  "seq",
            [OUTBOX_BEGIN_SETTLE] = "begin immediate",
            [OUTBOX_REJECT] = "insert into {rejected} (" REJECTED_COLUMNS ") select " COLUMNS
                              ", {literal} from {table} where seq = {list}",
            [OUTBOX_DELETE] = "delete from {table} where seq in ({list})",
            [OUTBOX_COMMIT] = "commit",
            [OUTBOX_ROLLBACK] = "rollback",
        },
    .data_size = "length(cast(data as blob))",
};

/* ---- names ---- */

static const struct outbox_dialect *const dialects[] = {&outbox_postgres, &outbox_mysql, &outbox_sqlite};

const struct outbox_dialect *outbox_dialect_find(const char *name) {
    for (size_t i = 0; i < sizeof dialects / sizeof dialects[0]; i++)
        if (strcasecmp(dialects[i]->name, name) == 0)
            return dialects[i];
    if (strcasecmp(name, "mariadb") == 0)
        return &outbox_mysql;
    return strcasecmp(name, "postgresql") == 0 ? &outbox_postgres : NULL;
}

const char *outbox_dialect_name(const struct outbox_dialect *d) {
    return d->name;
}

static bool part_valid(struct slice part) {
    bool good = part.n >= 1 && part.n <= PART_MAX && !(part.p[0] >= '0' && part.p[0] <= '9');
    for (size_t i = 0; good && i < part.n; i++)
        good = (part.p[i] >= 'a' && part.p[i] <= 'z') || (part.p[i] >= 'A' && part.p[i] <= 'Z') ||
               (part.p[i] >= '0' && part.p[i] <= '9') || part.p[i] == '_';
    return good;
}

static void split(const char *table, struct slice *ret_schema, struct slice *ret_name) {
    const char *dot = strchr(table, '.');
    *ret_schema = dot ? (struct slice){table, (size_t)(dot - table)} : SLICE_NONE;
    *ret_name = slice_of(dot ? dot + 1 : table);
}

bool outbox_table_valid(const char *table) {
    struct slice schema, name;
    split(table, &schema, &name);
    return part_valid(name) && (!schema.p || part_valid(schema));
}

/* ---- filling in ---- */

static void add_quoted(char quote, struct slice part, const char *suffix, struct buf *out) {
    buf_addf(out, "%c%.*s%s%c", quote, SLICE_ARG(part), suffix, quote);
}

/* The table's name with a suffix, in its schema. */
static void add_object(const struct outbox_dialect *d, const char *table, const char *suffix,
                       struct buf *out) {
    struct slice schema, name;
    split(table, &schema, &name);
    if (schema.p) {
        add_quoted(d->quote, schema, "", out);
        buf_add_char(out, '.');
    }
    add_quoted(d->quote, name, suffix, out);
}

/* The helper of the usual table has the usual name. */
static void add_publish(const struct outbox_dialect *d, const char *table, struct buf *out) {
    struct slice schema, name;
    split(table, &schema, &name);
    if (!slice_eq(name, SLICE_LIT("posthorn_outbox"))) {
        add_object(d, table, "_publish", out);
        return;
    }
    if (schema.p) {
        add_quoted(d->quote, schema, "", out);
        buf_add_char(out, '.');
    }
    add_quoted(d->quote, SLICE_LIT("posthorn_publish"), "", out);
}

struct filling {
    const struct outbox_dialect *d;
    const struct outbox_blanks *b;
    const char *base;
    unsigned number;
};

static bool fill_name(const struct filling *f, struct slice blank, struct buf *out) {
    struct slice schema, name;
    split(f->b->table, &schema, &name);
    if (slice_eq(blank, SLICE_LIT("table")))
        add_object(f->d, f->b->table, "", out);
    else if (slice_eq(blank, SLICE_LIT("rejected")))
        add_object(f->d, f->b->table, "_rejected", out);
    else if (slice_eq(blank, SLICE_LIT("publish")))
        add_publish(f->d, f->b->table, out);
    else if (slice_eq(blank, SLICE_LIT("wake")))
        add_object(f->d, f->b->table, "_wake", out);
    else if (slice_eq(blank, SLICE_LIT("insert")))
        add_object(f->d, f->b->table, "_insert", out);
    else if (slice_eq(blank, SLICE_LIT("wake_bare")))
        add_quoted(f->d->quote, name, "_wake", out);
    else if (slice_eq(blank, SLICE_LIT("index")))
        add_quoted(f->d->quote, name, "_hash_range_seq", out);
    else if (slice_eq(blank, SLICE_LIT("channel")))
        add_quoted(f->d->quote, name, "", out);
    else if (slice_eq(blank, SLICE_LIT("bare")))
        buf_add_slice(out, name);
    else
        return false;
    return true;
}

static bool fill_value(const struct filling *f, struct slice blank, struct buf *out) {
    if (slice_eq(blank, SLICE_LIT("mask")))
        buf_addf(out, "%d", OUTBOX_RANGES - 1);
    else if (slice_eq(blank, SLICE_LIT("ranges")))
        buf_addf(out, "%d", OUTBOX_RANGES);
    else if (slice_eq(blank, SLICE_LIT("evict_seconds")))
        buf_addf(out, "%d", OUTBOX_EVICT_SECONDS);
    else if (slice_eq(blank, SLICE_LIT("sleep")))
        buf_addf(out, "%d", OUTBOX_SLEEP_LOCKS);
    else if (slice_eq(blank, SLICE_LIT("members")))
        buf_addf(out, "%d", OUTBOX_MEMBERS_MAX);
    else if (slice_eq(blank, SLICE_LIT("row_bytes_max")))
        buf_addf(out, "%zu", f->b->row_bytes_max);
    else if (slice_eq(blank, SLICE_LIT("list")))
        buf_add_str(out, f->b->list);
    else if (slice_eq(blank, SLICE_LIT("literal")))
        buf_add_str(out, f->b->literal);
    else if (slice_eq(blank, SLICE_LIT("base")))
        buf_add_str(out, f->base);
    else if (slice_eq(blank, SLICE_LIT("number")))
        buf_addf(out, "%u", f->number);
    else
        return false;
    return true;
}

/* The text with its {blanks} filled in; other braces stay. */
static void fill(const struct filling *f, const char *text, struct buf *out) {
    while (*text) {
        const char *end = text[0] == '{' ? strchr(text, '}') : NULL;
        struct slice blank = {text + 1, end ? (size_t)(end - text) - 1 : 0};
        if (end && (fill_name(f, blank, out) || fill_value(f, blank, out)))
            text = end + 1;
        else
            buf_add_char(out, *text++);
    }
}

void outbox_ddl(const struct outbox_dialect *d, const struct outbox_ddl_options *o, struct buf *out) {
    const struct outbox_blanks b = {.table = o->table};
    const struct filling f = {.d = d, .b = &b};
    fill(&f, d->ddl, out);
    if (o->notify && d->ddl_notify)
        fill(&f, d->ddl_notify, out);
}

bool outbox_statement(const struct outbox_dialect *d, enum outbox_statement which,
                      const struct outbox_blanks *b, struct buf *out) {
    const struct filling f = {.d = d, .b = b};
    buf_reset(out);
    if (!d->statements[which])
        return false;
    fill(&f, d->statements[which], out);
    return true;
}

static void add_look(const struct outbox_dialect *d, const char *table, int range, const char *tenants,
                     const char *default_tenant, size_t limit, struct buf *out) {
    const char *joint = " where ";
    buf_addf(out, "select seq, %s from ", d->data_size);
    add_object(d, table, "", out);
    if (range >= 0) {
        buf_addf(out, "%shash_range = %d", joint, range);
        joint = " and ";
    }
    if (tenants)
        buf_addf(out, "%scoalesce(tenant, %s) not in (%s)", joint, default_tenant, tenants);
    buf_addf(out, " order by seq limit %zu", limit);
}

void outbox_look(const struct outbox_dialect *d, const char *table, uint32_t ranges, const char *tenants,
                 const char *default_tenant, size_t limit, struct buf *out) {
    bool first = true;
    buf_reset(out);
    if (ranges == OUTBOX_ALL_RANGES) {
        add_look(d, table, -1, tenants, default_tenant, limit, out);
        return;
    }
    for (int range = 0; range < OUTBOX_RANGES; range++) {
        if (!(ranges >> range & 1))
            continue;
        buf_add_str(out, first ? "(" : " union all (");
        add_look(d, table, range, tenants, default_tenant, limit, out);
        buf_add_char(out, ')');
        first = false;
    }
    buf_addf(out, " order by 1 limit %zu", limit);
}

/* ---- locks ---- */

static void add_each(const struct outbox_dialect *d, const char *text, const char *base, uint32_t locks,
                     unsigned first, struct buf *out) {
    const char *joint = "select ";
    buf_reset(out);
    for (unsigned i = 0; i < 32; i++) {
        if (!(locks >> i & 1))
            continue;
        const struct outbox_blanks none = {.table = ""};
        const struct filling f = {.d = d, .b = &none, .base = base, .number = first + i};
        buf_add_str(out, joint);
        fill(&f, text, out);
        joint = ", ";
    }
}

void outbox_try_locks(const struct outbox_dialect *d, const char *base, uint32_t locks, unsigned first,
                      struct buf *out) {
    add_each(d, d->lock, base, locks, first, out);
}

void outbox_unlock(const struct outbox_dialect *d, const char *base, uint32_t locks, unsigned first,
                   struct buf *out) {
    add_each(d, d->unlock, base, locks, first, out);
}

bool outbox_evict(const struct outbox_dialect *d, const char *base, struct buf *out) {
    const struct outbox_blanks none = {.table = ""};
    const struct filling f = {.d = d, .b = &none, .base = base};
    buf_reset(out);
    if (d->evict)
        fill(&f, d->evict, out);
    return d->evict != NULL;
}

void outbox_members(const struct outbox_dialect *d, const char *base, struct buf *out) {
    const struct outbox_blanks none = {.table = ""};
    struct filling f = {.d = d, .b = &none, .base = base};
    buf_reset(out);
    if (d->members) {
        fill(&f, d->members, out);
        return;
    }
    for (unsigned i = 0; i < OUTBOX_MEMBERS_MAX; i++) {
        buf_add_str(out, i ? " + " : "select ");
        f.number = OUTBOX_RANGES + i;
        fill(&f, d->member, out);
        buf_addf(out, " * %u", 1u << i);
    }
}
