#include "ingest/cdc_batch.h"

#include <errno.h>

#include "base/clock.h"

/* What a row points into, and where it came from. */
struct held {
    char *bytes; /* key, with its NUL, and the event's texts */
    const char *what;
};

struct cdc_batch {
    struct source *source;
    struct cdc_rejects *rejects;
    size_t n, rows_max, bytes;
    struct source_row rows[SOURCE_ROWS_MAX];
    struct held held[SOURCE_ROWS_MAX];
};

int cdc_batch_new(struct source *s, struct cdc_batch **ret) {
    struct cdc_batch *b = calloc(1, sizeof *b);
    int r = b ? cdc_rejects_new(s, &b->rejects) : -ENOMEM;
    if (r < 0) {
        free(b);
        return r;
    }
    b->source = s;
    b->rows_max = (size_t)source_settings(s)->batch;
    CHECK(b->rows_max > 0 && b->rows_max <= SOURCE_ROWS_MAX);
    *ret = b;
    return 0;
}

void cdc_batch_free(struct cdc_batch *b) {
    if (!b)
        return;
    for (size_t i = 0; i < b->n; i++)
        free(b->held[i].bytes);
    cdc_rejects_free(b->rejects);
    free(b);
}

/* ---- gathering ---- */

/* Copies a text behind the others; absent when it is empty. */
static struct slice put(char **at, const struct buf *text) {
    struct slice s = {*at, text->n};
    if (text->n == 0)
        return SLICE_NONE;
    memcpy(*at, text->p, text->n);
    *at += text->n;
    return s;
}

int cdc_batch_add(struct cdc_batch *b, const struct cdc_event *e, const struct cdc_origin *o) {
    CHECK(!cdc_batch_is_full(b));
    size_t key_n = strlen(o->key);
    size_t n = key_n + 1 + e->tenant.n + e->type.n + e->ordering_key.n + e->schema_version.n + e->data.n;
    char *at = malloc(n);
    if (!at)
        return -ENOMEM;
    b->held[b->n] = (struct held){at, o->what};
    memcpy(at, o->key, key_n + 1);
    struct source_row *row = &b->rows[b->n++];
    *row = (struct source_row){.key = {at, key_n},
                               .key_is_enough = true,
                               .deliver_at = e->deliver_at,
                               .committed_at = o->committed_at};
    at += key_n + 1;
    row->tenant = put(&at, &e->tenant);
    row->type = put(&at, &e->type);
    row->ordering_key = put(&at, &e->ordering_key);
    row->schema_version = put(&at, &e->schema_version);
    row->data = put(&at, &e->data);
    b->bytes += n;
    return 0;
}

void cdc_batch_reject(struct cdc_batch *b, const struct cdc_origin *o, struct slice reason,
                      struct slice content) {
    struct cdc_reject reject = {.key = o->key,
                                .what = o->what,
                                .reason = reason,
                                .content = content,
                                .committed_at = o->committed_at};
    cdc_rejects_add(b->rejects, &reject, clock_now_ms());
}

bool cdc_batch_is_empty(const struct cdc_batch *b) {
    return b->n == 0 && !cdc_rejects_wait(b->rejects);
}

bool cdc_batch_is_full(const struct cdc_batch *b) {
    return b->n >= b->rows_max || b->bytes >= SOURCE_BYTES_MAX || cdc_rejects_full(b->rejects);
}

/* ---- publishing ---- */

static void reject_row(struct cdc_batch *b, size_t i) {
    const struct source_row *row = &b->rows[i];
    struct cdc_reject reject = {.key = b->held[i].bytes,
                                .what = b->held[i].what,
                                .reason = slice_of(row->reason),
                                .tenant = row->tenant,
                                .type = row->type,
                                .ordering_key = row->ordering_key,
                                .content = row->data,
                                .committed_at = row->committed_at,
                                .counted = true};
    cdc_rejects_add(b->rejects, &reject, clock_now_ms());
}

/* Lets go of the rows that have an outcome; the others close up, in their order. */
static void drop_decided(struct cdc_batch *b) {
    size_t left = 0;
    for (size_t i = 0; i < b->n; i++) {
        if (b->rows[i].outcome == SOURCE_REJECTED)
            reject_row(b, i);
        if (source_row_is_decided(&b->rows[i])) {
            free(b->held[i].bytes);
            continue;
        }
        b->rows[left] = b->rows[i];
        b->held[left++] = b->held[i];
    }
    b->n = left;
    if (left == 0)
        b->bytes = 0;
}

int cdc_batch_publish(struct cdc_batch *b) {
    int r = b->n > 0 ? source_publish(b->source, b->rows, b->n) : 0;
    drop_decided(b);
    int kept = cdc_rejects_keep(b->rejects, clock_now_ms());
    return r < 0 ? r : kept;
}
