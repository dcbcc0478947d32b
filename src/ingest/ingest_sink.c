#include "ingest/ingest_sink.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include <openssl/sha.h>

#include "base/clock.h"

enum {
    WAIT_FOR_STORE_MS = 1000, /* after a disk that is full or failing */
    BODY_KEPT_MAX = 4096,     /* bytes of a row's buffer that are kept for the next */
};

/* The waiting rows of one tenant, in their order, on their way through ingest. */
struct group {
    struct ingest_sink *sink;
    struct group *next;
    int result; /* of the request */
    struct ingest_request request;
    size_t *rows; /* which row each of its events is */
    struct ingest_event events[];
};

struct ingest_sink {
    struct source_sink base;
    struct ingest_sink_options o;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    unsigned under_way; /* requests at the writer */
    /* of the call under way */
    const struct source_settings *from;
    struct source_row *source_rows;
    size_t n;
    int64_t wait_ms;
    struct buf bodies[SOURCE_ROWS_MAX];
    bool left[SOURCE_ROWS_MAX]; /* for a later call */
};

static void reject(struct source_row *row, const char *field, const char *message) {
    row->outcome = SOURCE_REJECTED;
    snprintf(row->reason, sizeof row->reason, "%s: %s", field, message);
}

static struct slice tenant_of(const struct ingest_sink *s, const struct source_row *row) {
    return row->tenant.p ? row->tenant : slice_of(s->from->tenant);
}

/* ---- a row as an event ---- */

/* What a repetition is compared by. */
static void hash_row(const struct source_row *row, struct slice body, uint8_t ret[32]) {
    struct slice what = row->key_is_enough ? row->key : body;
    SHA256((const unsigned char *)what.p, what.n, ret);
}

/* 0; -EINVAL: the row is rejected; -ENOMEM. */
static int parse_row(struct ingest_sink *s, size_t i, const struct tenant *t, struct ingest_event *e) {
    struct source_row *row = &s->source_rows[i];
    struct buf *body = &s->bodies[i];
    struct publish_rules rules = {.prefix = "", .in_batch = true, .now = clock_now_ms()};
    struct field_errors errors;
    const char *problem = "";
    size_t offset = 0;
    rules.data_bytes_max = t->limits.max_payload_bytes < s->o.event_bytes_max ? t->limits.max_payload_bytes
                                                                              : s->o.event_bytes_max;
    field_errors_init(&errors);
    buf_reset(body);
    int r = source_row_body(s->from->name, row, body, row->reason);
    if (r == 0)
        r = publish_parse(buf_slice(body), &rules, &e->publish, &errors, &problem, &offset);
    else if (r == -EINVAL)
        row->outcome = SOURCE_REJECTED;
    if (r == 0)
        hash_row(row, buf_slice(body), e->body_hash);
    else if (r == -EBADMSG)
        reject(row, "row", problem);
    else if (errors.n)
        reject(row, errors.at[0].field, errors.at[0].message);
    else if (r == -EMSGSIZE)
        reject(row, "data", "is too large");
    return r == 0 || r == -ENOMEM ? r : -EINVAL;
}

/* ---- one tenant's rows ---- */

static void request_done(struct ingest_request *q, int result) {
    struct group *g = (struct group *)((char *)q - offsetof(struct group, request));
    struct ingest_sink *s = g->sink;
    pthread_mutex_lock(&s->lock);
    g->result = result;
    s->under_way--;
    pthread_cond_signal(&s->ended);
    pthread_mutex_unlock(&s->lock);
}

/* How many of n events the tenant's quota lets through now: all, or the greatest half of a half… that it has.
 */
static size_t within_quota(struct ingest_sink *s, uint32_t tenant_no, size_t n) {
    unsigned seconds = 0;
    for (; n > 0; n /= 2)
        if (directory_take_events(s->o.directory, tenant_no, (unsigned)n, clock_mono_us(), &seconds))
            return n;
    if (s->wait_ms < (int64_t)seconds * 1000)
        s->wait_ms = (int64_t)seconds * 1000;
    return 0;
}

static bool waits_for(const struct ingest_sink *s, size_t i, const struct tenant *t) {
    const struct source_row *row = &s->source_rows[i];
    return row->outcome == SOURCE_WAITING && !s->left[i] && slice_eq(tenant_of(s, row), slice_of(t->id));
}

static struct group *group_new(struct ingest_sink *s, const struct tenant *t, size_t first) {
    size_t n = 0;
    for (size_t i = first; i < s->n; i++)
        n += waits_for(s, i, t);
    struct group *g = malloc(sizeof *g + n * sizeof g->events[0]);
    size_t *rows = malloc(n * sizeof *rows);
    if (!g || !rows) {
        free(g);
        free(rows);
        return NULL;
    }
    g->sink = s;
    g->next = NULL;
    g->result = 0;
    g->rows = rows;
    g->request = (struct ingest_request){.tenant_no = t->no, .events = g->events, .done = request_done};
    memcpy(g->request.tenant_id, t->id, sizeof g->request.tenant_id);
    return g;
}

static void group_free(struct group *g) {
    free(g->rows);
    free(g);
}

/* Takes the tenant's waiting rows into the group. */
static int fill(struct group *g, const struct tenant *t, size_t first) {
    struct ingest_sink *s = g->sink;
    for (size_t i = first; i < s->n; i++) {
        if (!waits_for(s, i, t))
            continue;
        int r = parse_row(s, i, t, &g->events[g->request.n]);
        if (r == -ENOMEM)
            return r;
        if (r == 0)
            g->rows[g->request.n++] = i;
    }
    size_t let = within_quota(s, t->no, g->request.n);
    for (size_t k = let; k < g->request.n; k++)
        s->source_rows[g->rows[k]].outcome = SOURCE_LATER;
    g->request.n = let;
    return 0;
}

/* Starts a group's request. Its rows are left for later when ingest does not take it. */
static void submit(struct group *g) {
    struct ingest_sink *s = g->sink;
    pthread_mutex_lock(&s->lock);
    s->under_way++;
    pthread_mutex_unlock(&s->lock);
    int r = ingest_submit(s->o.ingest, &g->request, clock_now_ms());
    if (r == 0)
        return;
    pthread_mutex_lock(&s->lock);
    s->under_way--;
    g->result = r;
    pthread_mutex_unlock(&s->lock);
}

/* What became of its rows; -EAGAIN or -ESHUTDOWN when they wait. */
static int settle(struct group *g) {
    struct ingest_sink *s = g->sink;
    struct ingest_request *q = &g->request;
    int result = g->result;
    if (result == -EEXIST) {
        reject(&s->source_rows[g->rows[q->conflict]], "key",
               "was used before for a row that said something else");
        return 0;
    }
    for (size_t k = 0; k < q->n; k++) {
        if (result == 0)
            s->source_rows[g->rows[k]].outcome = q->events[k].duplicate ? SOURCE_DUPLICATE : SOURCE_ACCEPTED;
        else
            s->left[g->rows[k]] = true;
    }
    if (result < 0 && result != -EAGAIN && s->wait_ms < WAIT_FOR_STORE_MS)
        s->wait_ms = WAIT_FOR_STORE_MS;
    return result == -ESHUTDOWN ? result : 0;
}

/* ---- a call ---- */

/* Whether the row names a tenant that there is; otherwise it is rejected. */
static bool find_tenant(struct ingest_sink *s, struct source_row *row, struct tenant *ret) {
    struct slice id = tenant_of(s, row);
    if (!id.p)
        reject(row, "tenant", "the row names none, and neither do the source's settings");
    else if (!directory_tenant(s->o.directory, id, ret))
        reject(row, "tenant", "there is no such tenant");
    return row->outcome == SOURCE_WAITING;
}

/* A group for the first row from *at on that waits. *ret is NULL when none is left. */
static int next_group(struct ingest_sink *s, size_t *at, struct group **ret) {
    *ret = NULL;
    for (; *at < s->n && !*ret; ++*at) {
        struct source_row *row = &s->source_rows[*at];
        struct tenant t;
        if (row->outcome != SOURCE_WAITING || s->left[*at] || !find_tenant(s, row, &t))
            continue;
        struct group *g = group_new(s, &t, *at);
        int r = g ? fill(g, &t, *at) : -ENOMEM;
        if (r == 0 && g->request.n > 0)
            *ret = g;
        else if (g)
            group_free(g);
        if (r < 0)
            return r;
    }
    return 0;
}

static void await(struct ingest_sink *s) {
    pthread_mutex_lock(&s->lock);
    while (s->under_way > 0)
        pthread_cond_wait(&s->ended, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* One request a tenant, all at once, for they share a commit. 1 when another round may get further. */
static int round_of_groups(struct ingest_sink *s) {
    struct group *all = NULL, *g;
    size_t at = 0;
    int r;
    while ((r = next_group(s, &at, &g)) == 0 && g) {
        for (size_t k = 0; k < g->request.n; k++)
            s->left[g->rows[k]] = true; /* until it is known */
        submit(g);
        g->next = all;
        all = g;
    }
    await(s);
    bool again = false;
    while ((g = all)) {
        all = g->next;
        if (g->result == -EEXIST) {
            again = true;
            for (size_t k = 0; k < g->request.n; k++)
                s->left[g->rows[k]] = false;
        }
        int settled = settle(g);
        r = r < 0 ? r : settled;
        ingest_request_clear(&g->request);
        group_free(g);
    }
    return r < 0 ? r : again;
}

static int publish(struct source_sink *base, const struct source_settings *from, struct source_row *rows,
                   size_t n, int64_t *ret_wait_ms) {
    struct ingest_sink *s = (struct ingest_sink *)base;
    CHECK(n > 0 && n <= SOURCE_ROWS_MAX);
    s->from = from;
    s->source_rows = rows;
    s->n = n;
    s->wait_ms = 0;
    memset(s->left, 0, sizeof s->left);
    int r;
    /* Each round after the first has rejected a row. */
    while ((r = round_of_groups(s)) > 0)
        ;
    *ret_wait_ms = s->wait_ms;
    for (size_t i = 0; i < n; i++)
        if (s->bodies[i].cap > BODY_KEPT_MAX)
            buf_free(&s->bodies[i]);
    if (r == -ESHUTDOWN)
        return r;
    for (size_t i = 0; i < n; i++)
        if (!source_row_is_decided(&rows[i]))
            return -EAGAIN;
    return 0;
}

/* ---- memory ---- */

/* A job of the writer's that reads or writes a note. */
struct noting {
    struct writer_job job;
    struct ingest_sink *sink;
    struct slice source, item, text;
    struct buf *ret; /* NULL: it writes */
    int result;
};

static int run_noting(struct writer_job *job, struct store *st) {
    struct noting *n = (struct noting *)job;
    return n->ret ? store_get_source_note(st, n->source, n->item, n->ret)
                  : store_put_source_note(st, n->source, n->item, n->text);
}

static void noting_done(struct writer_job *job, int result) {
    struct noting *n = (struct noting *)job;
    struct ingest_sink *s = n->sink;
    pthread_mutex_lock(&s->lock);
    n->result = result;
    s->under_way--;
    pthread_cond_signal(&s->ended);
    pthread_mutex_unlock(&s->lock);
}

static int note(struct source_sink *base, const struct source_settings *from, const char *item,
                struct slice text, struct buf *ret) {
    struct ingest_sink *s = (struct ingest_sink *)base;
    struct noting n = {.job = {.run = run_noting, .done = noting_done},
                       .sink = s,
                       .source = slice_of(from->name),
                       .item = slice_of(item),
                       .text = text,
                       .ret = ret};
    s->under_way++; /* alone: the source's thread is here */
    writer_submit_internal(s->o.writer, &n.job);
    await(s);
    return n.result;
}

static int load(struct source_sink *base, const struct source_settings *from, const char *item,
                struct buf *ret) {
    return note(base, from, item, SLICE_NONE, ret);
}

static int save(struct source_sink *base, const struct source_settings *from, const char *item,
                struct slice text) {
    return note(base, from, item, text, NULL);
}

static void sink_free(struct source_sink *base) {
    struct ingest_sink *s = (struct ingest_sink *)base;
    for (size_t i = 0; i < SOURCE_ROWS_MAX; i++)
        buf_free(&s->bodies[i]);
    pthread_cond_destroy(&s->ended);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct source_sink *ingest_sink_new(const struct ingest_sink_options *o) {
    struct ingest_sink *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->base = (struct source_sink){.publish = publish, .load = load, .save = save, .free = sink_free};
    s->o = *o;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->ended, NULL);
    return &s->base;
}
