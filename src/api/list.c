#include "api/list.h"

void list_begin(struct list *l, struct request *r, char letter, size_t limit, size_t parts) {
    *l = (struct list){.r = r, .letter = letter, .limit = limit, .parts = parts};
    buf_add_str(request_write(r, 200), "{\"data\":[");
}

bool list_next(struct list *l, uint64_t first, uint64_t second) {
    struct buf *out = &l->r->out;
    if (l->n == l->limit || (l->n && out->n > LIST_BYTES_MAX)) {
        l->more = true;
        return false;
    }
    if (l->n++)
        buf_add_char(out, ',');
    l->last[0] = first;
    l->last[1] = second;
    return true;
}

void list_stop(struct list *l, uint64_t first, uint64_t second) {
    l->more = true;
    l->last[0] = first;
    l->last[1] = second;
}

void list_end(struct list *l) {
    struct buf *out = &l->r->out;
    if (l->more) {
        char cursor[CURSOR_TEXT_SIZE];
        cursor_format(l->letter, l->last, l->parts, cursor);
        buf_addf(out, "],\"next_cursor\":\"%s\"}", cursor);
    } else {
        buf_add_str(out, "],\"next_cursor\":null}");
    }
}
