/* What is done to a store as a whole. Copies of it are PostgreSQL's own business. */
#include <errno.h>

#include "store/postgres/postgres.h"

int postgres_migrate(const char *url, size_t *ret_from, size_t *ret_to, const char **ret_message) {
    _cleanup_pg_source_ struct pg_source *source = NULL;
    struct pg c;
    int r = pg_open_url(url, &c, &source, ret_message);
    if (r < 0)
        return r;
    r = pg_migrate(&c, ret_from, ret_to, ret_message);
    pg_close(&c);
    return r;
}

int postgres_backup(const char *url, const char *file, store_progress_fn progress, void *arg,
                    struct store_summary *ret, const char **ret_message) {
    (void)url;
    (void)file;
    (void)progress;
    (void)arg;
    (void)ret;
    return store_explain(
        -EOPNOTSUPP, ret_message,
        "a store in PostgreSQL is backed up with PostgreSQL's own tools: pg_dump for a copy of "
        "one moment, pg_basebackup and archived logs for every moment; keep secret.key apart");
}

int postgres_restore(const char *file, const char *url, const struct store_restore *how,
                     struct store_summary *ret, const char **ret_message) {
    (void)file;
    (void)url;
    (void)how;
    (void)ret;
    return store_explain(
        -EOPNOTSUPP, ret_message,
        "a store in PostgreSQL comes back with PostgreSQL's own tools: pg_restore into an empty "
        "database, then posthorn check");
}
