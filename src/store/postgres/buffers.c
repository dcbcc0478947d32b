#include "store/postgres/postgres.h"

int pg_buffers_open(struct pg_store *s) {
    (void)s;
    return 0;
}

void pg_buffers_close(struct pg_store *s) {
    (void)s;
}

int pg_flush(struct pg_store *s) {
    (void)s;
    return 0;
}

void pg_buffers_drop(struct pg_store *s) {
    (void)s;
}
