#include "ingest/source_sql.h"

#include <errno.h>
#include <libgen.h>
#include <libpq-fe.h>
#include <limits.h>

#include "ingest/source_url.h"

static const struct sql_driver *const drivers[] = {&sql_postgres, &sql_mysql, &sql_sqlite};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const struct sql_driver *sql_driver_of(const char *url) {
    for (size_t i = 0; i < COUNT(drivers); i++)
        for (const char *const *scheme = drivers[i]->schemes; *scheme; scheme++)
            if (slice_starts_with(slice_of(url), slice_of(*scheme)))
                return drivers[i];
    return NULL;
}

int sql_open(struct source *s, struct sql **ret) {
    char problem[SQL_PROBLEM_SIZE] = "";
    const struct sql_driver *driver = sql_driver_of(source_settings(s)->url);
    CHECK(driver);
    struct sql *c = NULL;
    int r = driver->open(s, &c, problem);
    if (r < 0) {
        if (!source_stopping(s))
            source_fault(
                s, "the database of the source cannot be reached", problem[0] ? problem : strerror(-r),
                "see that it runs, and that the source's url and password are right; it is tried again");
        return r;
    }
    c->driver = driver;
    c->source = s;
    *ret = c;
    return 0;
}

int sql_run(struct sql *c, const struct buf *text, sql_row_fn *each, void *arg) {
    if (!buf_ok(text))
        return -ENOMEM;
    c->problem[0] = '\0';
    return c->driver->run(c, buf_slice(text), each, arg);
}

int sql_run_text(struct sql *c, const char *text) {
    c->problem[0] = '\0';
    return c->driver->run(c, slice_of(text), NULL, NULL);
}

void sql_close(struct sql *c) {
    if (c)
        c->driver->close(c);
}

void sql_files_free(struct sql_files *f) {
    for (size_t i = 0; i < f->readable_n; i++)
        free(f->readable[i]);
    free(f->writable);
    *f = (struct sql_files){0};
}

/* ---- files ---- */

static int add_readable(struct sql_files *f, const char *path) {
    if (!path || path[0] != '/')
        return 0;
    CHECK(f->readable_n < SQL_FILES_MAX);
    f->readable[f->readable_n] = slice_dup(slice_of(path));
    return f->readable[f->readable_n++] ? 0 : -ENOMEM;
}

static int postgres_files(const char *url, struct sql_files *ret) {
    static const char *const files[] = {"passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl"};
    static const char *const at_home[] = {".pgpass", ".postgresql"};
    PQconninfoOption *options = PQconninfoParse(url, NULL);
    int r = options ? 0 : -EINVAL;
    for (PQconninfoOption *o = options; r == 0 && o->keyword; o++)
        for (size_t i = 0; i < COUNT(files); i++)
            if (strcmp(o->keyword, files[i]) == 0)
                r = add_readable(ret, o->val);
    PQconninfoFree(options);
    for (size_t i = 0; r == 0 && getenv("HOME") && i < COUNT(at_home); i++) {
        _cleanup_buf_ struct buf path = {0};
        buf_addf(&path, "%s/%s", getenv("HOME"), at_home[i]);
        r = buf_ok(&path) ? add_readable(ret, path.p) : -ENOMEM;
    }
    return r;
}

static int mysql_files(const char *url, struct sql_files *ret) {
    struct mysql_url u;
    const char *why;
    int r = mysql_url_parse(url, &u, &why);
    if (r < 0)
        return r;
    r = add_readable(ret, u.ssl_ca);
    mysql_url_free(&u);
    return r;
}

static int sqlite_files(const char *url, struct sql_files *ret) {
    char resolved[PATH_MAX];
    const char *path = url + strlen("sqlite:");
    char *copy = slice_dup(slice_of(realpath(path, resolved) ? resolved : path));
    if (!copy)
        return -ENOMEM;
    ret->writable = slice_dup(slice_of(dirname(copy)));
    free(copy);
    return ret->writable ? 0 : -ENOMEM;
}

int sql_files(const char *url, struct sql_files *ret) {
    const struct sql_driver *driver = sql_driver_of(url);
    struct sql_files f = {0};
    CHECK(driver);
    int r = driver == &sql_postgres ? postgres_files(url, &f)
            : driver == &sql_mysql  ? mysql_files(url, &f)
                                    : sqlite_files(url, &f);
    if (r < 0)
        sql_files_free(&f);
    else
        *ret = f;
    return r;
}
