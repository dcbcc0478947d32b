/* What sources remember. */
#include <errno.h>

#include "store/postgres/postgres.h"

int postgres_put_source_note(struct store *s, struct slice source, struct slice item, struct slice text) {
    struct pg *c = &pg_of(s)->writer;
    struct pg_params *p = pg_params(c);
    pg_text(p, source);
    pg_text(p, item);
    pg_text(p, text);
    return pg_send(c, "INSERT INTO source_notes (source, item, text) VALUES ($1,$2,$3)"
                      " ON CONFLICT (source, item) DO UPDATE SET text=$3");
}

int postgres_get_source_note(struct store *s, struct slice source, struct slice item, struct buf *ret) {
    struct pg *c = &pg_of(s)->writer;
    struct pg_params *p = pg_params(c);
    _cleanup_pg_rows_ struct pg_rows rows = {0};
    pg_text(p, source);
    pg_text(p, item);
    int r = pg_query_row(c, "SELECT text FROM source_notes WHERE source=$1 AND item=$2", &rows);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    buf_add_slice(ret, pg_column_slice(&rows, 0));
    return buf_ok(ret) ? 0 : -ENOMEM;
}
