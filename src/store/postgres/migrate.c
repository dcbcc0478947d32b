/* The schema: numbered files, one transaction each. The table posthorn_schema says which it is, and the
 * oldest that a program may know and still run on it. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "store/postgres/postgres.h"
#include "store/schema/schema.h"

enum {
    MIGRATION_MS = 3600 * 1000,
    WAIT_FOR_OTHERS_MS = 60 * 1000,
};

struct version {
    size_t is, runs_from; /* 0: there is no schema yet */
};

static int read_version(struct pg *c, struct version *ret) {
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(c, "SELECT to_regclass('posthorn_schema') IS NOT NULL", &rows);
    *ret = (struct version){0};
    if (r <= 0 || !pg_column_int(&rows, 0))
        return r < 0 ? r : 0;
    r = pg_query_row(c, "SELECT version, runs_from FROM posthorn_schema", &rows);
    if (r > 0)
        *ret = (struct version){(size_t)pg_column_int(&rows, 0), (size_t)pg_column_int(&rows, 1)};
    return r < 0 ? r : 0;
}

int pg_schema_version(struct pg *c, size_t *ret) {
    struct version v;
    int r = read_version(c, &v);
    *ret = v.is;
    return r;
}

/* Whether this program may run on it as it is. */
static int judge(const struct pg *c, const struct version *v, const char **ret_message) {
    if (v->is <= postgres_migrations_n)
        return 0;
    if (v->is == postgres_migrations_n + 1 && v->runs_from <= postgres_migrations_n)
        return 0;
    return store_explain(-EPROTONOSUPPORT, ret_message,
                         "the store at %s was written by a newer posthorn (schema %zu, this one knows %zu): "
                         "start the newer one",
                         c->source->name, v->is, postgres_migrations_n);
}

static int explain(struct pg *c, int r, size_t to, const char **ret_message) {
    const char *name = c->source->name;
    if (strcmp(c->sqlstate, "42P07") == 0)
        return store_explain(
            -EUCLEAN, ret_message,
            "the database at %s holds tables of another program: give posthorn one of its own, "
            "or a schema of its own (?options=-csearch_path%%3DNAME)",
            name);
    if (strcmp(c->sqlstate, "42501") == 0)
        return store_explain(r, ret_message,
                             "the user may not make tables in %s: make it the owner of the database (ALTER "
                             "DATABASE … OWNER TO …)",
                             name);
    if (strcmp(c->sqlstate, "55P03") == 0)
        return store_explain(-EBUSY, ret_message,
                             "another posthorn is changing the schema of %s: try again when it is done",
                             name);
    return store_explain(r, ret_message, "the store at %s could not be brought to schema %zu: %s", name, to,
                         strerror(-r));
}

/* Programs that know only an older schema, while the new one is not for them. */
static int check_nodes(struct pg *c, const struct version *v, size_t to, const char **ret_message) {
    if (v->is == 0 || postgres_runs_from[to - 1] <= v->is)
        return 0;
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    int r = pg_query_row(c, "SELECT count(*) FROM nodes WHERE lease_until>" PG_NOW, &rows);
    if (r <= 0)
        return explain(c, r < 0 ? r : -EIO, to, ret_message);
    int64_t n = pg_column_int(&rows, 0);
    return n == 0
               ? 0
               : store_explain(-EBUSY, ret_message,
                               "%lld nodes of an older posthorn run on %s and cannot run on schema %zu: stop "
                               "them first",
                               (long long)n, c->source->name, to);
}

static int migrate_to(struct pg *c, size_t to) {
    _cleanup_buf_ struct buf sql = {0};
    buf_add_str(&sql, "BEGIN;\n");
    if (to == 1)
        buf_add_str(&sql,
                    "CREATE TABLE posthorn_schema (version integer NOT NULL, runs_from integer NOT NULL);\n"
                    "INSERT INTO posthorn_schema VALUES (0, 0);\n");
    buf_add_str(&sql, postgres_migrations[to - 1]);
    buf_addf(&sql, "\nUPDATE posthorn_schema SET version=%zu, runs_from=%zu;\nCOMMIT", to,
             postgres_runs_from[to - 1]);
    if (!buf_ok(&sql))
        return -ENOMEM;
    int r = pg_script(c, sql.p);
    if (r < 0) {
        char sqlstate[sizeof c->sqlstate];
        memcpy(sqlstate, c->sqlstate, sizeof sqlstate);
        (void)!pg_script(c, "ROLLBACK");
        memcpy(c->sqlstate, sqlstate, sizeof sqlstate);
    }
    return r;
}

static int migrate_locked(struct pg *c, struct version *v, size_t *ret_from, const char **ret_message) {
    int r = read_version(c, v);
    if (r < 0)
        return explain(c, r, postgres_migrations_n, ret_message);
    *ret_from = v->is;
    r = judge(c, v, ret_message);
    if (r == 0)
        store_say_upgrade(v->is, postgres_migrations_n);
    while (r == 0 && v->is < postgres_migrations_n) {
        size_t to = v->is + 1;
        r = check_nodes(c, v, to, ret_message);
        if (r == 0 && (r = migrate_to(c, to)) < 0)
            r = explain(c, r, to, ret_message);
        if (r == 0)
            *v = (struct version){to, postgres_runs_from[to - 1]};
    }
    return r;
}

static int migrate_alone(struct pg *c, struct version *v, size_t *ret_from, const char **ret_message) {
    char sql[64];
    snprintf(sql, sizeof sql, "SET lock_timeout=%d", WAIT_FOR_OTHERS_MS);
    int r = pg_script(c, sql);
    if (r == 0)
        r = pg_query(c, "SELECT pg_advisory_lock(" PG_LOCK_CLASS ", 0)", NULL);
    if (r < 0)
        return explain(c, r, postgres_migrations_n, ret_message);
    return migrate_locked(c, v, ret_from, ret_message); /* the lock ends with the connection */
}

int pg_migrate(struct pg *c, size_t *ret_from, size_t *ret_to, const char **ret_message) {
    struct version v;
    int r = read_version(c, &v);
    if (r < 0)
        return explain(c, r, postgres_migrations_n, ret_message);
    *ret_from = v.is;
    if (v.is < postgres_migrations_n) {
        struct pg_limits patient = pg_usual_limits;
        patient.statement_ms = patient.idle_in_transaction_ms = MIGRATION_MS;
        struct pg own;
        pg_init(&own, c->source, &patient);
        r = pg_connect(&own, ret_message);
        if (r == 0)
            r = migrate_alone(&own, &v, ret_from, ret_message);
        pg_close(&own);
    } else {
        r = judge(c, &v, ret_message);
    }
    *ret_to = v.is;
    return r;
}
