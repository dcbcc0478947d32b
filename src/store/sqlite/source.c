/* What sources remember. */
#include <errno.h>

#include "store/sqlite/sqlite.h"

int sqlite_put_source_note(struct store *s, struct slice source, struct slice item, struct slice text) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st =
        connection_prepare(c, "INSERT OR REPLACE INTO source_notes (source, item, text) VALUES (?,?,?)");
    bind_text(st, 1, source);
    bind_text(st, 2, item);
    bind_text(st, 3, text);
    return statement_run(c, st);
}

int sqlite_get_source_note(struct store *s, struct slice source, struct slice item, struct buf *ret) {
    struct connection *c = &sqlite_of(s)->writer;
    sqlite3_stmt *st = connection_prepare(c, "SELECT text FROM source_notes WHERE source=? AND item=?");
    bind_text(st, 1, source);
    bind_text(st, 2, item);
    int r = statement_next(c, st);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    buf_add_slice(ret, column_slice(st, 0));
    statement_done(st);
    return buf_ok(ret) ? 0 : -ENOMEM;
}
